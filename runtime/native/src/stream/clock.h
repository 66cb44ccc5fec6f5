/* Device time: 64-bit seconds or ticks, and what lies a span before or after them.
 *
 * A window of 1.0 s at 30,000.5 Hz is no whole number of ticks. Then borders are float64, and so
 * is what is compared with them, as in Python's runtime.
 */
#ifndef PE_CLOCK_H
#define PE_CLOCK_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#define PE_MOST_TICKS (INT64_C(1) << 62)

typedef union {
    double s;
    int64_t k;
} pe_time;

/* A border of a window, or a span: whole ticks, or float64. */
typedef struct {
    bool whole;
    int64_t k;
    double d;
} pe_edge;

typedef struct {
    bool ticks;
    double rate_hz; /* 1 for seconds */
    double window_s;
    pe_edge window, future;
} pe_clock;

/* Differences wrap, as those of Python's int64 do; nothing that is decoded comes near. */
static inline int64_t pe_wrapped(uint64_t k) { return (int64_t)k; }

static inline double pe_edge_real(pe_edge e) { return e.whole ? (double)e.k : e.d; }

static inline double pe_real(const pe_clock *c, pe_time t) { return c->ticks ? (double)t.k : t.s; }

static inline double pe_seconds(const pe_clock *c, pe_time t) {
    return c->ticks ? (double)t.k / c->rate_hz : t.s;
}

static inline pe_edge pe_span(const pe_clock *c, double seconds) {
    double ticks = seconds * c->rate_hz;
    if (c->ticks && ticks == floor(ticks) && fabs(ticks) < (double)PE_MOST_TICKS)
        return (pe_edge){.whole = true, .k = (int64_t)ticks};
    return (pe_edge){.d = ticks};
}

static inline pe_edge pe_exactly(const pe_clock *c, pe_time t) {
    return c->ticks ? (pe_edge){.whole = true, .k = t.k} : (pe_edge){.d = t.s};
}

static inline pe_edge pe_before(const pe_clock *c, pe_time t, pe_edge span) {
    if (c->ticks && span.whole)
        return (pe_edge){.whole = true, .k = pe_wrapped((uint64_t)t.k - (uint64_t)span.k)};
    return (pe_edge){.d = pe_real(c, t) - pe_edge_real(span)};
}

static inline pe_edge pe_after(const pe_clock *c, pe_time t, pe_edge span) {
    if (c->ticks && span.whole)
        return (pe_edge){.whole = true, .k = pe_wrapped((uint64_t)t.k + (uint64_t)span.k)};
    return (pe_edge){.d = pe_real(c, t) + pe_edge_real(span)};
}

/* a - b, as a span. */
static inline pe_edge pe_between(const pe_clock *c, pe_time a, pe_time b) {
    if (c->ticks) return (pe_edge){.whole = true, .k = pe_wrapped((uint64_t)a.k - (uint64_t)b.k)};
    return (pe_edge){.d = a.s - b.s};
}

static inline bool pe_shorter(pe_edge a, pe_edge b) {
    return a.whole && b.whole ? a.k < b.k : pe_edge_real(a) < pe_edge_real(b);
}

static inline bool pe_below(const pe_clock *c, pe_time t, pe_edge e) {
    return c->ticks && e.whole ? t.k < e.k : pe_real(c, t) < pe_edge_real(e);
}

static inline bool pe_above(const pe_clock *c, pe_time t, pe_edge e) {
    return c->ticks && e.whole ? t.k > e.k : pe_real(c, t) > pe_edge_real(e);
}

static inline bool pe_earlier(const pe_clock *c, pe_time a, pe_time b) {
    return c->ticks ? a.k < b.k : a.s < b.s;
}

static inline bool pe_same(const pe_clock *c, pe_time a, pe_time b) {
    return c->ticks ? a.k == b.k : a.s == b.s;
}

static inline bool pe_finite(const pe_clock *c, pe_time t) { return c->ticks || isfinite(t.s); }

#endif
