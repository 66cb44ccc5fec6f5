#include "failsafe.h"

#include <string.h>

#define RATE_S 20.0 /* the rate heard is an average over about so long */

void pe_failsafe_note_good(pe_failsafe *failsafe, const double *value, double s) {
    memcpy(failsafe->good, value, failsafe->dim_out * sizeof *value);
    failsafe->has_good = true;
    failsafe->good_s = s;
}

poyoedge_status pe_failsafe_instead(const pe_failsafe *failsafe, double s, double *value) {
    const pe_limits *limits = &failsafe->limits;
    memset(value, 0, failsafe->dim_out * sizeof *value);
    if (!failsafe->has_good) return POYOEDGE_INVALID;
    double age = s - failsafe->good_s, fading = age - limits->hold_s;
    if (age <= limits->hold_s) {
        memcpy(value, failsafe->good, failsafe->dim_out * sizeof *value);
        return POYOEDGE_HELD;
    }
    if (limits->decay_s == 0 || fading > 5 * limits->decay_s) return POYOEDGE_INVALID;
    double share = exp(-fading / limits->decay_s);
    for (size_t i = 0; i < failsafe->dim_out; i++)
        value[i] = failsafe->good[i] * share;
    return POYOEDGE_INVALID;
}

void pe_silence_restart(pe_silence *silence) {
    silence->has_last = silence->has_heard_at = silence->has_lost_at = false;
}

static bool too_long(const pe_silence *silence, const pe_limits *limits, double silent_s) {
    double rate_hz = silence->stated_hz;
    if (silence->heard_hz < rate_hz) rate_hz = silence->heard_hz;
    if (!isfinite(rate_hz)) return false;
    return silent_s >= limits->silence_s && silent_s * rate_hz >= limits->missed_spikes;
}

static double lasting_s(const pe_clock *c, pe_time from, pe_time to) {
    return pe_edge_real(pe_between(c, to, from)) * (1 / c->rate_hz);
}

/* Follow the rate by a whole window that new spikes came in. */
static void hear(pe_silence *silence, const pe_clock *c, pe_time now, size_t n_spikes) {
    double unit_s = 1 / c->rate_hz, window = pe_edge_real(c->window), since = 0;
    if (silence->has_heard_at) since = pe_edge_real(pe_between(c, now, silence->heard_at));
    silence->heard_at = now;
    silence->has_heard_at = true;
    double rate_hz = (double)n_spikes / ((window > since ? window : since) * unit_s);
    if (!isfinite(silence->heard_hz)) silence->heard_hz = rate_hz;
    double share = -expm1(-since * unit_s / RATE_S);
    silence->heard_hz += share * (rate_hz - silence->heard_hz);
}

uint64_t pe_silence_look(pe_silence *silence, const pe_limits *limits, const pe_ring *ring,
                         pe_time now, pe_time newest, size_t first, size_t last, uint64_t flags,
                         bool lost) {
    const pe_clock *c = ring->clock;
    if (flags & POYOEDGE_FLAG_CLOCK_RESET) pe_silence_restart(silence);
    bool had = silence->has_last;
    pe_time before = silence->last;
    silence->last = newest;
    silence->has_last = true;
    if (lost || too_long(silence, limits, lasting_s(c, newest, now))) {
        silence->lost_at = silence->heard_at = now; /* such a time says nothing about rates */
        silence->has_lost_at = silence->has_heard_at = true;
        return POYOEDGE_FLAG_STREAM_LOST;
    }
    if (had && pe_earlier(c, before, newest)) {
        size_t at = pe_ring_behind(ring, before);
        /* A silence that no window ended in, as when the clock jumps ahead. */
        if (first < at && at < last &&
            too_long(silence, limits, lasting_s(c, before, ring->all.times[at]))) {
            silence->lost_at = ring->all.times[at];
            silence->has_lost_at = true;
        }
    }
    uint64_t found = 0;
    if (silence->has_lost_at && pe_shorter(pe_between(c, now, silence->lost_at), c->window))
        found = POYOEDGE_FLAG_GAP;
    if (!(flags & POYOEDGE_FLAG_WARMUP) && !(had && pe_same(c, before, newest)))
        hear(silence, c, now, last - first);
    return found;
}
