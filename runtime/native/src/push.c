/* Spikes in: never waits. Who has the lock applies the rules; who has not leaves a chunk. */
#include <string.h>

#include "decoder.h"

/* The row in the session in use of what was pushed as one; the lock is held. */
static int32_t row_of(poyoedge_decoder *decoder, int32_t pushed) {
    const pe_session *session = decoder->session;
    uint32_t mark = (uint32_t)pushed >> PE_ROW_BITS;
    int32_t row = pushed & PE_ROW_MASK;
    if (pushed < 0) return -1;
    if (mark == 0) {
        if (session->takes_integers) return row;
        decoder->intake.counters.stale_rows++;
        decoder->intake.refused = true;
        return -1;
    }
    if (mark > decoder->n_tables || (size_t)row >= decoder->tables[mark - 1].units.n) return -1;
    if (mark == session->mark) return row;
    return (int32_t)pe_units_find_same(session->units, &decoder->tables[mark - 1].units,
                                       (size_t)row);
}

/* Apply the rules to the chunk that stands in the intake; the lock is held. */
static void add(poyoedge_decoder *decoder, size_t n) {
    int32_t *rows = decoder->intake.chunk.rows;
    for (size_t i = 0; i < n; i++)
        rows[i] = row_of(decoder, rows[i]);
    pe_intake_add(&decoder->intake, n, decoder->session->units->n);
}

void pe_drain(poyoedge_decoder *decoder) {
    size_t n;
    /* Those that are there now: a thread that pushes faster could keep one here for ever. */
    for (uint64_t left = pe_queue_count(&decoder->queue); left; left--) {
        pe_queue_take(&decoder->queue, decoder->intake.chunk, &n);
        add(decoder, n);
    }
    pe_time newest;
    uint64_t lost = pe_queue_lost(&decoder->queue, &newest);
    if (!lost) return;
    poyoedge_counters *counters = &decoder->intake.counters;
    counters->received += lost;
    counters->accepted += lost;
    counters->overflow += lost;
    pe_ring_note_lost(&decoder->intake.ring, newest);
}

static void push_piece(poyoedge_decoder *decoder, const pe_time *times, const int32_t *rows,
                       size_t n) {
    if (atomic_load(&decoder->waiting) || pthread_mutex_trylock(&decoder->lock) != 0) {
        pe_queue_put(&decoder->queue, &decoder->clock, times, rows, n);
        return;
    }
    pe_drain(decoder);
    memcpy(decoder->intake.chunk.times, times, n * sizeof *times);
    memcpy(decoder->intake.chunk.rows, rows, n * sizeof *rows);
    add(decoder, n);
    pe_unlock(decoder);
}

static int push(poyoedge_decoder *decoder, bool ticks, const void *times, const int32_t *rows,
                size_t n) {
    if (!decoder || !pe_enter(decoder)) return POYOEDGE_USAGE;
    int code = POYOEDGE_OK;
    if (ticks != decoder->clock.ticks) {
        code = pe_fail(decoder, POYOEDGE_USAGE,
                       ticks ? "push_ticks: expected seconds, as the decoder was opened without "
                               "tick_rate_hz, got ticks; use poyoedge_push"
                             : "push: expected ticks, as the decoder was opened with tick_rate_hz, "
                               "got seconds; use poyoedge_push_ticks");
    } else if (n && (!times || !rows)) {
        code = pe_fail(decoder, POYOEDGE_USAGE, "push: expected times and rows, got NULL");
    } else if (atomic_exchange(&decoder->pushing, true)) {
        code = pe_fail(decoder, POYOEDGE_BUSY,
                       "push: expected one thread that pushes, got a second one meanwhile");
    } else {
        const pe_time *all = times;
        for (size_t at = 0, some; at < n; at += some) {
            some = n - at < PE_CHUNK ? n - at : PE_CHUNK;
            push_piece(decoder, all + at, rows + at, some);
        }
        atomic_store(&decoder->pushing, false);
    }
    pe_leave(decoder);
    return code;
}

int poyoedge_push(poyoedge_decoder *decoder, const double *seconds, const int32_t *rows, size_t n) {
    return push(decoder, false, seconds, rows, n);
}

int poyoedge_push_ticks(poyoedge_decoder *decoder, const int64_t *ticks, const int32_t *rows,
                        size_t n) {
    return push(decoder, true, ticks, rows, n);
}
