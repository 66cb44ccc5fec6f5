#include "ring.h"

#include <stdlib.h>
#include <string.h>

bool pe_ring_init(pe_ring *ring, const pe_clock *clock, size_t capacity) {
    *ring = (pe_ring){.clock = clock, .capacity = capacity};
    ring->all.times = malloc(2 * capacity * sizeof *ring->all.times);
    ring->all.rows = malloc(2 * capacity * sizeof *ring->all.rows);
    return ring->all.times && ring->all.rows;
}

void pe_ring_free(pe_ring *ring) {
    free(ring->all.times);
    free(ring->all.rows);
    ring->all = (pe_spikes){0};
}

void pe_ring_clear(pe_ring *ring) {
    ring->start = ring->end = 0;
    ring->has_forgotten = ring->has_lost = false;
}

size_t pe_ring_from(const pe_ring *ring, pe_edge edge) {
    size_t low = ring->start, high = ring->end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pe_below(ring->clock, ring->all.times[middle], edge))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t pe_ring_behind(const pe_ring *ring, pe_time t) {
    size_t low = ring->start, high = ring->end;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (pe_earlier(ring->clock, t, ring->all.times[middle]))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

void pe_ring_note_lost(pe_ring *ring, pe_time t) {
    if (!ring->has_lost || pe_earlier(ring->clock, ring->lost_until, t)) ring->lost_until = t;
    ring->has_lost = true;
}

static void move_to_front(pe_ring *ring) {
    size_t n = pe_ring_count(ring);
    memmove(ring->all.times, ring->all.times + ring->start, n * sizeof *ring->all.times);
    memmove(ring->all.rows, ring->all.rows + ring->start, n * sizeof *ring->all.rows);
    ring->start = 0;
    ring->end = n;
}

/* Merge a chunk behind the live spikes, from the back; what came first stays first. */
static void merge(pe_ring *ring, pe_spikes chunk, size_t n) {
    pe_time *times = ring->all.times;
    int32_t *rows = ring->all.rows;
    size_t old = ring->end, to = ring->end + n;
    while (n) {
        bool is_old =
            old > ring->start && pe_earlier(ring->clock, chunk.times[n - 1], times[old - 1]);
        --to;
        times[to] = is_old ? times[old - 1] : chunk.times[n - 1];
        rows[to] = is_old ? rows[old - 1] : chunk.rows[n - 1];
        if (is_old)
            --old;
        else
            --n;
    }
}

size_t pe_ring_append(pe_ring *ring, pe_spikes chunk, size_t n) {
    size_t held = pe_ring_count(ring), lost = 0;
    if (held + n > ring->capacity) lost = held + n - ring->capacity;
    if (n > ring->capacity) {
        size_t skip = n - ring->capacity;
        pe_ring_note_lost(ring, chunk.times[skip - 1]);
        chunk.times += skip;
        chunk.rows += skip;
        n = ring->capacity;
    }
    if (ring->end + n > 2 * ring->capacity) move_to_front(ring);
    if (held && pe_earlier(ring->clock, chunk.times[0], ring->all.times[ring->end - 1])) {
        merge(ring, chunk, n);
    } else {
        memcpy(ring->all.times + ring->end, chunk.times, n * sizeof *chunk.times);
        memcpy(ring->all.rows + ring->end, chunk.rows, n * sizeof *chunk.rows);
    }
    ring->end += n;
    if (pe_ring_count(ring) > ring->capacity) {
        ring->start = ring->end - ring->capacity;
        pe_ring_note_lost(ring, ring->all.times[ring->start - 1]);
    }
    return lost;
}

void pe_ring_window(pe_ring *ring, pe_edge start, pe_edge end, size_t *first, size_t *last) {
    *first = pe_ring_from(ring, start);
    *last = pe_ring_from(ring, end);
    if (*last < *first) *last = *first;
    if (*first > ring->start) {
        ring->forgotten_until = ring->all.times[*first - 1];
        ring->has_forgotten = true;
    }
    ring->start = *first;
}

size_t pe_ring_remap(pe_ring *ring, const int32_t *new_row) {
    size_t n = 0, count = pe_ring_count(ring);
    for (size_t i = ring->start; i < ring->end; i++) {
        int32_t row = new_row[ring->all.rows[i]];
        if (row < 0) continue;
        ring->all.times[n] = ring->all.times[i];
        ring->all.rows[n++] = row;
    }
    ring->start = 0;
    ring->end = n;
    return count - n;
}
