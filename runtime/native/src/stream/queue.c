#include "queue.h"

#include <stdlib.h>
#include <string.h>

bool pe_queue_init(pe_queue *queue) {
    memset(queue, 0, sizeof *queue);
    queue->spikes.times = malloc(PE_QUEUE_SPIKES * sizeof *queue->spikes.times);
    queue->spikes.rows = malloc(PE_QUEUE_SPIKES * sizeof *queue->spikes.rows);
    queue->ends = malloc(PE_QUEUE_CHUNKS * sizeof *queue->ends);
    return queue->spikes.times && queue->spikes.rows && queue->ends;
}

void pe_queue_free(pe_queue *queue) {
    free(queue->spikes.times);
    free(queue->spikes.rows);
    free(queue->ends);
}

static void note_lost(pe_queue *queue, const pe_clock *clock, const pe_time *times, size_t n) {
    pe_time newest = {.k = atomic_load_explicit(&queue->lost_until, memory_order_relaxed)};
    for (size_t i = 0; i < n; i++) {
        pe_time t; /* the caller's numbers are double or int64_t, not pe_time */
        memcpy(&t, &times[i], sizeof t);
        if (!pe_finite(clock, t)) continue;
        if (!queue->has_lost || pe_earlier(clock, newest, t)) newest = t;
        queue->has_lost = true;
    }
    atomic_store_explicit(&queue->lost_until, newest.k, memory_order_relaxed);
    atomic_fetch_add_explicit(&queue->n_lost, n, memory_order_release);
}

/* Copy n of from to a place in a buffer that is used round, or back. */
#define COPY_ROUND(buffer, place, other, n, copy)                                                  \
    do {                                                                                           \
        size_t at_ = (size_t)((place) % PE_QUEUE_SPIKES), first_ = PE_QUEUE_SPIKES - at_;          \
        if (first_ > (n)) first_ = (n);                                                            \
        copy((buffer) + at_, (other), first_ * sizeof *(buffer));                                  \
        copy((buffer), (other) + first_, ((n) - first_) * sizeof *(buffer));                       \
    } while (0)
#define PUT(a, b, size) memcpy(a, b, size)
#define TAKE(a, b, size) memcpy(b, a, size)

bool pe_queue_put(pe_queue *queue, const pe_clock *clock, const pe_time *times, const int32_t *rows,
                  size_t n) {
    uint64_t chunk = atomic_load_explicit(&queue->n_put, memory_order_relaxed);
    uint64_t taken = atomic_load_explicit(&queue->n_taken, memory_order_acquire);
    uint64_t used =
        queue->spikes_put - atomic_load_explicit(&queue->spikes_taken, memory_order_acquire);
    if (chunk - taken == PE_QUEUE_CHUNKS || PE_QUEUE_SPIKES - used < n) {
        note_lost(queue, clock, times, n);
        return false;
    }
    COPY_ROUND(queue->spikes.times, queue->spikes_put, times, n, PUT);
    COPY_ROUND(queue->spikes.rows, queue->spikes_put, rows, n, PUT);
    queue->spikes_put += n;
    queue->ends[chunk % PE_QUEUE_CHUNKS] = queue->spikes_put;
    atomic_store_explicit(&queue->n_put, chunk + 1, memory_order_release);
    return true;
}

uint64_t pe_queue_count(const pe_queue *queue) {
    return atomic_load_explicit(&queue->n_put, memory_order_acquire) -
           atomic_load_explicit(&queue->n_taken, memory_order_relaxed);
}

void pe_queue_take(pe_queue *queue, pe_spikes to, size_t *n) {
    uint64_t chunk = atomic_load_explicit(&queue->n_taken, memory_order_relaxed);
    uint64_t from = atomic_load_explicit(&queue->spikes_taken, memory_order_relaxed);
    uint64_t end = queue->ends[chunk % PE_QUEUE_CHUNKS];
    *n = (size_t)(end - from);
    COPY_ROUND(queue->spikes.times, from, to.times, *n, TAKE);
    COPY_ROUND(queue->spikes.rows, from, to.rows, *n, TAKE);
    atomic_store_explicit(&queue->spikes_taken, end, memory_order_release);
    atomic_store_explicit(&queue->n_taken, chunk + 1, memory_order_release);
}

uint64_t pe_queue_lost(pe_queue *queue, pe_time *newest) {
    uint64_t lost = atomic_load_explicit(&queue->n_lost, memory_order_acquire);
    uint64_t noted = atomic_load_explicit(&queue->n_lost_noted, memory_order_relaxed);
    atomic_store_explicit(&queue->n_lost_noted, lost, memory_order_relaxed);
    newest->k = atomic_load_explicit(&queue->lost_until, memory_order_relaxed);
    return lost - noted;
}
