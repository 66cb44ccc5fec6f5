/* When nothing good can leave the decoder, and what does then: hold, then decay, then zero. */
#ifndef PE_FAILSAFE_H
#define PE_FAILSAFE_H

#include "../../poyoedge.h"
#include "ring.h"

typedef struct {
    double hold_s, decay_s, missed_spikes, silence_s;
} pe_limits;

typedef struct {
    pe_limits limits;
    size_t dim_out;
    double *good; /* the last good value */
    bool has_good;
    double good_s;
} pe_failsafe;

void pe_failsafe_note_good(pe_failsafe *failsafe, const double *value, double s);
/* The value to give at s seconds when nothing good is there, and its status. */
poyoedge_status pe_failsafe_instead(const pe_failsafe *failsafe, double s, double *value);

/* Whether a silence of the whole array is longer than its rates allow; looked at once a window.
 * The rate is the session's own or, where that is smaller or not known, the one heard so far. */
typedef struct {
    double stated_hz, heard_hz; /* INFINITY: not known */
    bool has_last, has_heard_at, has_lost_at;
    pe_time last, heard_at, lost_at;
} pe_silence;

void pe_silence_restart(pe_silence *silence);
/* Flags to add to those of the window of spikes [first, last) that ends at now; newest: spike. */
uint64_t pe_silence_look(pe_silence *silence, const pe_limits *limits, const pe_ring *ring,
                         pe_time now, pe_time newest, size_t first, size_t last, uint64_t flags,
                         bool lost);

#endif
