/* A window out: copied under the lock, decoded without it. */
#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "decoder.h"

typedef struct {
    pe_time now;
    pe_session *session;
    uint64_t flags;
    size_t n;
    pe_time last; /* the newest spike, if n */
} pe_taken;

/* Seconds from the start of the window, below its length, as relative_times of tokens.py. */
static float relative(const pe_clock *c, pe_time t, pe_edge start) {
    double offset = c->ticks && start.whole
                        ? (double)pe_wrapped((uint64_t)t.k - (uint64_t)start.k) / c->rate_hz
                    : c->ticks ? ((double)t.k - start.d) / c->rate_hz
                               : t.s - start.d;
    float seconds = (float)offset, last = nextafterf((float)c->window_s, 0);
    return seconds < last ? seconds : last;
}

/* Take the window that ends at now out of the ring; the lock is held. */
static void take(poyoedge_decoder *decoder, pe_taken *taken, bool stream_lost) {
    const pe_clock *c = &decoder->clock;
    pe_intake *intake = &decoder->intake;
    pe_time now = taken->now;
    size_t first, last;
    bool reset;
    pe_drain(decoder);
    taken->session = decoder->running = decoder->session;
    taken->flags = pe_intake_advance(intake, now, &reset);
    if (reset) decoder->failsafe.has_good = false;
    pe_edge start = pe_before(c, now, c->window), end = pe_exactly(c, now);
    if (c->ticks && !start.whole) end = (pe_edge){.d = (double)now.k};
    pe_ring_window(&intake->ring, start, end, &first, &last);
    taken->flags |= pe_intake_reservations(intake, now, first, last);
    pe_time newest = intake->covered_since;
    if (last > first)
        newest = intake->ring.all.times[last - 1];
    else if (intake->ring.has_forgotten)
        newest = intake->ring.forgotten_until;
    taken->flags |=
        pe_silence_look(&taken->session->silence, &decoder->failsafe.limits, &intake->ring, now,
                        newest, first, last, taken->flags, stream_lost);
    size_t budget = taken->session->frozen.max_spikes;
    if (last - first > budget) {
        intake->counters.over_budget += last - first - budget;
        first = last - budget;
        taken->flags |= POYOEDGE_FLAG_OVER_BUDGET;
    }
    taken->n = last - first;
    if (!taken->n)
        taken->flags |= POYOEDGE_FLAG_SILENT;
    else
        taken->last = intake->ring.all.times[last - 1];
    for (size_t i = 0; i < taken->n; i++)
        decoder->window.times[i] = relative(c, intake->ring.all.times[first + i], start);
    memcpy(decoder->window.rows, intake->ring.all.rows + first, taken->n * sizeof(int32_t));
}

static poyoedge_status status_of(uint64_t flags) {
    if (flags & (POYOEDGE_FLAG_WARMUP | POYOEDGE_FLAG_CLOCK_RESET)) return POYOEDGE_WARMUP;
    return flags ? POYOEDGE_DEGRADED : POYOEDGE_VALID;
}

/* Run the model; false if it failed or gave NaN or Inf. */
static bool run(poyoedge_decoder *decoder, const pe_taken *taken, double *value) {
    OrtStatus *problem =
        pe_ort_run(&decoder->ort, taken->session->model, &decoder->window, taken->n);
    if (problem) {
        char sentence[256];
        snprintf(sentence, sizeof sentence, "decode: ONNX Runtime failed: %s",
                 decoder->ort.api->GetErrorMessage(problem));
        decoder->ort.api->ReleaseStatus(problem);
        pe_fail(decoder, POYOEDGE_ENVIRONMENT, sentence);
        return false;
    }
    for (size_t i = 0; i < decoder->dim_out; i++) {
        value[i] = (double)decoder->window.value[i];
        if (!isfinite(value[i])) {
            pe_fail(decoder, POYOEDGE_ENVIRONMENT, "decode: the model gave NaN or Inf");
            return false;
        }
    }
    return true;
}

static void fill(const poyoedge_decoder *decoder, const pe_taken *taken, poyoedge_status status,
                 int64_t latency_ns, poyoedge_result *result) {
    bool ticks = decoder->clock.ticks;
    *result = (poyoedge_result){
        .size = sizeof *result,
        .status = status,
        .flags = taken->flags,
        .n_spikes = (uint32_t)taken->n,
        .dim_out = decoder->dim_out,
        .last_spike_s = taken->n && !ticks ? taken->last.s : NAN,
        .last_spike_tick = taken->n && ticks ? taken->last.k : INT64_MIN,
        .latency_ns = latency_ns,
    };
}

static void decode_now(poyoedge_decoder *decoder, pe_time now, uint32_t how, double *value,
                       poyoedge_result *result, int64_t started) {
    pe_taken taken = {.now = now};
    atomic_store(&decoder->decoding_since_ns, started);
    pe_lock(decoder);
    take(decoder, &taken, how & POYOEDGE_STREAM_LOST);
    pe_unlock(decoder);
    double seconds = pe_seconds(&decoder->clock, now);
    poyoedge_status status;
    bool failed = false;
    if (taken.flags & POYOEDGE_FLAG_STREAM_LOST) {
        status = pe_failsafe_instead(&decoder->failsafe, seconds, value);
    } else if (run(decoder, &taken, value)) {
        pe_failsafe_note_good(&decoder->failsafe, value, seconds);
        status = status_of(taken.flags);
    } else {
        failed = true;
        taken.flags |= POYOEDGE_FLAG_BACKEND;
        status = pe_failsafe_instead(&decoder->failsafe, seconds, value);
    }
    int64_t ended = pe_now_ns();
    if (result) fill(decoder, &taken, status, ended - started, result);
    pe_lock(decoder);
    decoder->intake.counters.backend_failures += failed;
    pe_latency_add(&decoder->latency, ended - started);
    decoder->statuses[status]++;
    decoder->running = NULL;
    pe_unlock(decoder);
    atomic_store(&decoder->last_decode_ns, ended);
    atomic_store(&decoder->decoding_since_ns, 0);
}

/* What is wrong with the arguments, or NULL. */
static const char *wrong(const poyoedge_decoder *decoder, bool ticks, pe_time now, uint32_t how,
                         const double *value, size_t n_value, const poyoedge_result *result) {
    if (ticks != decoder->clock.ticks)
        return ticks ? "decode_ticks: expected seconds, as the decoder was opened without "
                       "tick_rate_hz, got ticks; use poyoedge_decode"
                     : "decode: expected ticks, as the decoder was opened with tick_rate_hz, got "
                       "seconds; use poyoedge_decode_ticks";
    if (!value || n_value < decoder->dim_out)
        return "decode: expected room for dim_out numbers in value, got less";
    if (result && result->size != sizeof *result)
        return "decode: expected result->size to be sizeof(poyoedge_result), got something else";
    if (how & ~POYOEDGE_STREAM_LOST) return "decode: expected how to be 0 or POYOEDGE_STREAM_LOST";
    if (ticks ? now.k <= -PE_MOST_TICKS || now.k >= PE_MOST_TICKS
              : !(fabs(now.s) < (double)PE_MOST_TICKS))
        return ticks ? "decode_ticks: expected ticks below 2^62, got more"
                     : "decode: expected finite seconds, got NaN, Inf or more than 2^62";
    return NULL;
}

static int decode(poyoedge_decoder *decoder, bool ticks, pe_time now, uint32_t how, double *value,
                  size_t n_value, poyoedge_result *result) {
    int64_t started = pe_now_ns();
    if (value && n_value) memset(value, 0, n_value * sizeof *value);
    if (!decoder || !pe_enter(decoder)) return POYOEDGE_USAGE;
    const char *problem = wrong(decoder, ticks, now, how, value, n_value, result);
    int code = POYOEDGE_OK;
    if (problem) {
        code = pe_fail(decoder, POYOEDGE_USAGE, problem);
    } else if (atomic_exchange(&decoder->decoding, true)) {
        code = pe_fail(decoder, POYOEDGE_BUSY,
                       "decode: expected one thread that decodes, got a second one meanwhile");
    } else {
        decode_now(decoder, now, how, value, result, started);
        atomic_store(&decoder->decoding, false);
    }
    pe_leave(decoder);
    return code;
}

int poyoedge_decode(poyoedge_decoder *decoder, double t, uint32_t how, double *value,
                    size_t n_value, poyoedge_result *result) {
    return decode(decoder, false, (pe_time){.s = t}, how, value, n_value, result);
}

int poyoedge_decode_ticks(poyoedge_decoder *decoder, int64_t tick, uint32_t how, double *value,
                          size_t n_value, poyoedge_result *result) {
    return decode(decoder, true, (pe_time){.k = tick}, how, value, n_value, result);
}
