/* What happens to each spike on its way in: the rules, and a counter for every rule. */
#ifndef PE_INTAKE_H
#define PE_INTAKE_H

#include "../../poyoedge.h"
#include "ring.h"

#define PE_CHUNK (1u << 16) /* most spikes that the rules are applied to at once */

/* Whether many of the spikes that came within about a window came too late for theirs. */
typedef struct {
    bool has_at;
    uint64_t tardy; /* spikes since the last window that came more than a tenth of one late */
    pe_time at;
    uint64_t received;
    double came, came_tardy;
} pe_lateness;

typedef struct {
    const pe_clock *clock;
    pe_ring ring;
    poyoedge_counters counters;
    bool has_decoded, has_covered, has_newest, has_refused_at, has_gap_end, refused;
    pe_time decoded_until; /* end of the last decoded window */
    pe_time covered_since; /* from when on the stream has been heard */
    pe_time newest;        /* spike heard */
    pe_time refused_at;    /* end of the first window after rows were last refused */
    pe_time gap_end;
    pe_lateness lateness;
    pe_spikes chunk, spare;   /* PE_CHUNK spikes each */
    uint32_t *seen, seen_now; /* per row: the time, counted, at which it was last met */
    size_t n_seen;
} pe_intake;

bool pe_intake_init(pe_intake *intake, const pe_clock *clock, size_t capacity);
void pe_intake_free(pe_intake *intake);

/* Room for the rows of a session of so many units; the old room is given to the caller to free. */
void pe_intake_use(pe_intake *intake, uint32_t **seen, size_t n_units);

/* Apply the rules to the n spikes in intake->chunk; rows of the session, -1 for unknown units. */
void pe_intake_add(pe_intake *intake, size_t n, size_t n_units);

/* Forget all spikes; the stream counts as heard from t on. */
void pe_intake_restart(pe_intake *intake, pe_time t);

/* Move the clock to now: flags of the window that ends there. *reset: the clock jumped. */
uint64_t pe_intake_advance(pe_intake *intake, pe_time now, bool *reset);

/* Flags of the window of spikes [first, last) of the ring that ends at now. */
uint64_t pe_intake_reservations(pe_intake *intake, pe_time now, size_t first, size_t last);

#endif
