/* Recent spikes in bounded memory, sorted by time; those of one time as they came.
 *
 * The buffer is twice as long as the capacity; when its end is reached the live part moves to the
 * front, so that live spikes are always one contiguous piece.
 */
#ifndef PE_RING_H
#define PE_RING_H

#include <stddef.h>

#include "clock.h"

typedef struct {
    pe_time *times;
    int32_t *rows;
} pe_spikes;

typedef struct {
    const pe_clock *clock;
    size_t capacity, start, end;
    pe_spikes all;
    bool has_forgotten, has_lost;
    pe_time forgotten_until; /* the newest spike that a window has left behind */
    pe_time lost_until;      /* the newest spike that had to give way */
} pe_ring;

bool pe_ring_init(pe_ring *ring, const pe_clock *clock, size_t capacity);
void pe_ring_free(pe_ring *ring);
void pe_ring_clear(pe_ring *ring);
static inline size_t pe_ring_count(const pe_ring *ring) { return ring->end - ring->start; }

/* First live place that is not before the edge, or the end. */
size_t pe_ring_from(const pe_ring *ring, pe_edge edge);
/* First live place that is after a time, or the end. */
size_t pe_ring_behind(const pe_ring *ring, pe_time t);

/* Add n spikes, ascending, at least one; the newest are kept. Returns how many were lost. */
size_t pe_ring_append(pe_ring *ring, pe_spikes chunk, size_t n);
/* The live places of [start, end); spikes before it are forgotten. */
void pe_ring_window(pe_ring *ring, pe_edge start, pe_edge end, size_t *first, size_t *last);
/* Give every spike the row new_row[row]; forget those with -1 and say how many. */
size_t pe_ring_remap(pe_ring *ring, const int32_t *new_row);
/* A spike at t was lost. */
void pe_ring_note_lost(pe_ring *ring, pe_time t);

#endif
