#include "intake.h"

#include <stdlib.h>
#include <string.h>

#include "sort.h"

#define MOST_TARDY 0.1
#define LEAST_TARDY 3.0

static bool spikes_init(pe_spikes *spikes, size_t n) {
    spikes->times = malloc(n * sizeof *spikes->times);
    spikes->rows = malloc(n * sizeof *spikes->rows);
    return spikes->times && spikes->rows;
}

static void spikes_free(pe_spikes *spikes) {
    free(spikes->times);
    free(spikes->rows);
}

bool pe_intake_init(pe_intake *intake, const pe_clock *clock, size_t capacity) {
    *intake = (pe_intake){.clock = clock};
    bool ring = pe_ring_init(&intake->ring, clock, capacity);
    bool chunk = spikes_init(&intake->chunk, PE_CHUNK);
    return spikes_init(&intake->spare, PE_CHUNK) && chunk && ring;
}

void pe_intake_free(pe_intake *intake) {
    pe_ring_free(&intake->ring);
    spikes_free(&intake->chunk);
    spikes_free(&intake->spare);
    free(intake->seen);
}

void pe_intake_use(pe_intake *intake, uint32_t **seen, size_t n_units) {
    uint32_t *old = intake->seen;
    intake->seen = *seen;
    intake->n_seen = n_units;
    intake->seen_now = 0;
    *seen = old;
}

/* Whether an ascending chunk is finite and neither late nor future. */
static bool in_reach(const pe_intake *intake, pe_time first, pe_time last) {
    const pe_clock *c = intake->clock;
    if (!pe_finite(c, first) || !pe_finite(c, last)) return false;
    if (!intake->has_decoded) return true;
    return !pe_below(c, first, pe_before(c, intake->decoded_until, c->window)) &&
           !pe_above(c, last, pe_after(c, intake->decoded_until, c->future));
}

/* Leave what is finite, known, not late and not future, in the order of time. */
static size_t sift(pe_intake *intake, size_t n, size_t n_units) {
    const pe_clock *c = intake->clock;
    poyoedge_counters *counters = &intake->counters;
    pe_spikes all = intake->chunk;
    size_t kept = 0;
    bool ascending = true;
    pe_edge earliest = {0}, latest = {0};
    if (intake->has_decoded) {
        earliest = pe_before(c, intake->decoded_until, c->window);
        latest = pe_after(c, intake->decoded_until, c->future);
    }
    for (size_t i = 0; i < n; i++) {
        pe_time t = all.times[i];
        if (!pe_finite(c, t)) {
            counters->not_finite++;
        } else if (all.rows[i] < 0 || (size_t)all.rows[i] >= n_units) {
            counters->unknown_unit++;
        } else if (intake->has_decoded && pe_below(c, t, earliest)) {
            counters->late++;
            intake->lateness.tardy++;
        } else if (intake->has_decoded && pe_above(c, t, latest)) {
            counters->future++;
        } else {
            if (kept && pe_earlier(c, t, all.times[kept - 1])) ascending = false;
            all.times[kept] = t;
            all.rows[kept++] = all.rows[i];
        }
    }
    if (!ascending) pe_sort(c, &intake->chunk, &intake->spare, kept);
    return kept;
}

static void next_time(pe_intake *intake) {
    if (++intake->seen_now == 0) {
        memset(intake->seen, 0, intake->n_seen * sizeof *intake->seen);
        intake->seen_now = 1;
    }
}

/* Leave spikes that do not repeat a time and row in the ring or earlier in the chunk. */
static size_t without_duplicates(pe_intake *intake, size_t n) {
    const pe_clock *c = intake->clock;
    pe_spikes all = intake->chunk, old = intake->ring.all;
    size_t at = pe_ring_from(&intake->ring, pe_exactly(c, all.times[0])), kept = 0;
    pe_time time = {0};
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || !pe_same(c, all.times[i], time)) {
            time = all.times[i];
            next_time(intake);
            while (at < intake->ring.end && pe_earlier(c, old.times[at], time))
                at++;
            for (; at < intake->ring.end && pe_same(c, old.times[at], time); at++)
                intake->seen[old.rows[at]] = intake->seen_now;
        }
        uint32_t *seen = &intake->seen[all.rows[i]];
        if (*seen == intake->seen_now) continue;
        *seen = intake->seen_now;
        all.times[kept] = all.times[i];
        all.rows[kept++] = all.rows[i];
    }
    intake->counters.duplicate += n - kept;
    return kept;
}

static void note_delayed(pe_intake *intake, size_t n) {
    const pe_clock *c = intake->clock;
    const pe_time *times = intake->chunk.times;
    if (!intake->has_decoded || !pe_earlier(c, times[0], intake->decoded_until)) return;
    pe_edge tenth = {.d = pe_real(c, intake->decoded_until) - pe_edge_real(c->window) / 10};
    for (size_t i = 0; i < n && pe_earlier(c, times[i], intake->decoded_until); i++)
        intake->counters.delayed++;
    for (size_t i = 0; i < n && pe_below(c, times[i], tenth); i++)
        intake->lateness.tardy++;
}

void pe_intake_add(pe_intake *intake, size_t n, size_t n_units) {
    const pe_clock *c = intake->clock;
    intake->counters.received += n;
    if (!n) return;
    const pe_time *times = intake->chunk.times;
    bool strictly = true, ascending = true, known = true;
    for (size_t i = 0; i < n; i++) {
        known = known && (uint32_t)intake->chunk.rows[i] < n_units;
        if (i == 0) continue;
        strictly = strictly && pe_earlier(c, times[i - 1], times[i]);
        ascending = ascending && (strictly || pe_earlier(c, times[i - 1], times[i]) ||
                                  pe_same(c, times[i - 1], times[i]));
    }
    if (!(ascending && known && in_reach(intake, times[0], times[n - 1]))) {
        n = sift(intake, n, n_units);
        strictly = false;
        times = intake->chunk.times; /* sorting may have exchanged it */
    }
    bool newer = n && (!intake->has_newest || pe_earlier(c, intake->newest, times[0]));
    if (n && !(strictly && newer)) n = without_duplicates(intake, n);
    if (!n) return;
    note_delayed(intake, n);
    if (!intake->has_covered || pe_earlier(c, times[0], intake->covered_since))
        intake->covered_since = times[0];
    if (!intake->has_newest || pe_earlier(c, intake->newest, times[n - 1]))
        intake->newest = times[n - 1];
    intake->has_covered = intake->has_newest = true;
    intake->counters.accepted += n;
    intake->counters.overflow += pe_ring_append(&intake->ring, intake->chunk, n);
}

void pe_intake_restart(pe_intake *intake, pe_time t) {
    pe_ring_clear(&intake->ring);
    intake->covered_since = t;
    intake->has_covered = true;
    intake->has_newest = intake->has_refused_at = false;
    intake->lateness = (pe_lateness){0};
}

/* Back at all, or ahead by more than a window of everything decoded and heard. */
static bool clock_jumped(const pe_intake *intake, pe_time now) {
    const pe_clock *c = intake->clock;
    if (!intake->has_decoded) return false;
    pe_time until = intake->decoded_until;
    if (intake->has_newest && pe_earlier(c, until, intake->newest)) until = intake->newest;
    return pe_earlier(c, now, intake->decoded_until) ||
           pe_shorter(c->window, pe_between(c, now, until));
}

uint64_t pe_intake_advance(pe_intake *intake, pe_time now, bool *reset) {
    const pe_clock *c = intake->clock;
    uint64_t flags = 0;
    *reset = clock_jumped(intake, now);
    if (*reset) {
        intake->counters.clock_resets++;
        pe_intake_restart(intake, now);
        flags |= POYOEDGE_FLAG_CLOCK_RESET;
    }
    intake->decoded_until = now;
    intake->has_decoded = true;
    if (!intake->has_covered) intake->covered_since = now;
    intake->has_covered = true;
    pe_edge start = pe_before(c, now, c->window);
    if (pe_above(c, intake->covered_since, start)) flags |= POYOEDGE_FLAG_WARMUP;
    if (intake->ring.has_lost && !pe_below(c, intake->ring.lost_until, start))
        flags |= POYOEDGE_FLAG_OVERFLOW;
    return flags;
}

/* Whether the first spike of a window ended a silence longer than a window. */
static bool after_gap(pe_intake *intake, size_t first, size_t last) {
    const pe_clock *c = intake->clock;
    const pe_ring *ring = &intake->ring;
    if (first == last || !ring->has_forgotten) return false;
    pe_time begin = ring->all.times[first];
    if (!pe_shorter(c->window, pe_between(c, begin, ring->forgotten_until))) return false;
    if (!intake->has_gap_end || !pe_same(c, begin, intake->gap_end)) intake->counters.gaps++;
    intake->gap_end = begin;
    intake->has_gap_end = true;
    return true;
}

/* Whether rows were refused that the window ending at now may lack. */
static bool lacks_refused(pe_intake *intake, pe_time now) {
    if (intake->refused) {
        intake->refused = false;
        intake->refused_at = now;
        intake->has_refused_at = true;
    }
    const pe_clock *c = intake->clock;
    return intake->has_refused_at && pe_shorter(pe_between(c, now, intake->refused_at), c->window);
}

/* Follow what came up to now; called once a window. */
static bool many_late(pe_intake *intake, pe_time now) {
    const pe_clock *c = intake->clock;
    pe_lateness *late = &intake->lateness;
    uint64_t tardy = late->tardy, received = intake->counters.received;
    late->tardy = 0;
    if (late->has_at) {
        double since = pe_edge_real(pe_between(c, now, late->at));
        double kept = exp(-(since > 0 ? since : 0.0) / pe_edge_real(c->window));
        late->came = kept * late->came + (double)received - (double)late->received;
        late->came_tardy = kept * late->came_tardy + (double)tardy;
    }
    late->at = now;
    late->has_at = true;
    late->received = received;
    double most = MOST_TARDY * late->came;
    return late->came_tardy > (most > LEAST_TARDY ? most : LEAST_TARDY);
}

uint64_t pe_intake_reservations(pe_intake *intake, pe_time now, size_t first, size_t last) {
    uint64_t flags = 0;
    if (after_gap(intake, first, last)) flags |= POYOEDGE_FLAG_GAP;
    if (lacks_refused(intake, now)) flags |= POYOEDGE_FLAG_STALE_ROWS;
    if (many_late(intake, now)) flags |= POYOEDGE_FLAG_DELAYED;
    return flags;
}
