/* Chunks that were pushed while somebody else had the ring: from one thread to one other at a time,
 * without a lock. What does not fit is counted, with the newest of its times.
 */
#ifndef PE_QUEUE_H
#define PE_QUEUE_H

#include <stdatomic.h>

#include "intake.h"

#define PE_QUEUE_SPIKES PE_CHUNK
#define PE_QUEUE_CHUNKS 1024u

typedef struct {
    pe_spikes spikes;                /* PE_QUEUE_SPIKES, used round */
    uint64_t *ends;                  /* PE_QUEUE_CHUNKS, used round: where each chunk ends */
    _Atomic uint64_t n_put, n_taken; /* chunks */
    _Atomic uint64_t spikes_taken;
    uint64_t spikes_put; /* of the thread that pushes */
    _Atomic uint64_t n_lost, n_lost_noted;
    _Atomic int64_t lost_until; /* bits of a pe_time, of all that were lost */
    bool has_lost;              /* of the thread that pushes */
} pe_queue;

bool pe_queue_init(pe_queue *queue);
void pe_queue_free(pe_queue *queue);
/* Put n spikes, PE_CHUNK at most; false, and they are counted as lost, if there is no room. */
bool pe_queue_put(pe_queue *queue, const pe_clock *clock, const pe_time *times, const int32_t *rows,
                  size_t n);
/* How many chunks wait. */
uint64_t pe_queue_count(const pe_queue *queue);
/* Take the oldest chunk, of one at least, into a place for PE_CHUNK spikes. */
void pe_queue_take(pe_queue *queue, pe_spikes to, size_t *n);
/* How many spikes were lost since the last call, and the newest of them. */
uint64_t pe_queue_lost(pe_queue *queue, pe_time *newest);

#endif
