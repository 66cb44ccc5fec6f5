/* What a decoder says of itself, from any thread. */
#include <string.h>

#include "decoder.h"

int pe_fail(poyoedge_decoder *decoder, int code, const char *sentence) {
    pthread_mutex_lock(&decoder->error_lock);
    size_t n = strlen(sentence);
    if (n >= sizeof decoder->error) n = sizeof decoder->error - 1;
    memcpy(decoder->error, sentence, n);
    decoder->error[n] = 0;
    pthread_mutex_unlock(&decoder->error_lock);
    return code;
}

size_t poyoedge_error(poyoedge_decoder *decoder, char *sentence, size_t size) {
    static const char closed[] = "expected a decoder, got NULL or one that is being closed";
    if (!decoder || !pe_enter(decoder)) {
        if (sentence && size) {
            size_t n = sizeof closed - 1 < size ? sizeof closed - 1 : size - 1;
            memcpy(sentence, closed, n);
            sentence[n] = 0;
        }
        return sizeof closed - 1;
    }
    pthread_mutex_lock(&decoder->error_lock);
    size_t length = strlen(decoder->error), n = length;
    if (sentence && size) {
        if (n >= size) n = size - 1;
        memcpy(sentence, decoder->error, n);
        sentence[n] = 0;
    }
    pthread_mutex_unlock(&decoder->error_lock);
    pe_leave(decoder);
    return length;
}

int poyoedge_rows(poyoedge_decoder *decoder, const char *const *names, size_t n, int32_t *rows) {
    if (!decoder || !pe_enter(decoder)) return POYOEDGE_USAGE;
    int code = POYOEDGE_OK;
    if (n && (!names || !rows)) {
        code = pe_fail(decoder, POYOEDGE_USAGE, "rows: expected names and room for rows, got NULL");
    } else {
        pe_lock(decoder);
        const pe_units *units = decoder->session->units; /* kept until the decoder is closed */
        int32_t mark = (int32_t)(decoder->session->mark << PE_ROW_BITS);
        pe_unlock(decoder);
        for (size_t i = 0; i < n; i++) {
            int64_t row = -1;
            if (names[i]) row = pe_units_find(units, (pe_name){names[i], strlen(names[i])});
            rows[i] = row < 0 ? -1 : mark | (int32_t)row;
        }
    }
    pe_leave(decoder);
    return code;
}

int poyoedge_stats(poyoedge_decoder *decoder, poyoedge_state *state) {
    if (!decoder || !pe_enter(decoder)) return POYOEDGE_USAGE;
    int code = POYOEDGE_OK;
    if (!state || state->size != sizeof *state) {
        code =
            pe_fail(decoder, POYOEDGE_USAGE,
                    "stats: expected state->size to be sizeof(poyoedge_state), got something else");
    } else {
        *state = (poyoedge_state){.size = sizeof *state, .dim_out = decoder->dim_out};
        pe_lock(decoder);
        pe_drain(decoder);
        const pe_frozen *frozen = &decoder->session->frozen;
        const pe_latency *latency = &decoder->latency;
        state->n_units = (uint32_t)decoder->session->units->n;
        state->max_spikes = frozen->max_spikes;
        state->window_s = frozen->window_s;
        state->counters = decoder->intake.counters;
        state->buffered_spikes = pe_ring_count(&decoder->intake.ring);
        memcpy(state->statuses, decoder->statuses, sizeof state->statuses);
        for (int i = 0; i < POYOEDGE_N_STATUSES; i++)
            state->n_decodes += state->statuses[i];
        state->p50_ms = pe_latency_percentile_ms(latency, 50);
        state->p90_ms = pe_latency_percentile_ms(latency, 90);
        state->p99_ms = pe_latency_percentile_ms(latency, 99);
        state->p999_ms = pe_latency_percentile_ms(latency, 99.9);
        state->max_ms = (double)latency->max_ns / 1e6;
        memcpy(state->session_id, frozen->session_id, sizeof state->session_id);
        memcpy(state->unit, frozen->unit, sizeof state->unit);
        pe_unlock(decoder);
        memcpy(state->onnxruntime, decoder->ort.version, sizeof state->onnxruntime);
        state->decoding_since_ns = atomic_load(&decoder->decoding_since_ns);
        state->last_decode_ns = atomic_load(&decoder->last_decode_ns);
    }
    pe_leave(decoder);
    return code;
}

const char *poyoedge_version(void) { return POYOEDGE_VERSION; }
