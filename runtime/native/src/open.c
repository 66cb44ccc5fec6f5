/* A decoder's life: opened, entered, closed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decoder.h"

int64_t pe_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

bool pe_enter(poyoedge_decoder *decoder) {
    atomic_fetch_add(&decoder->inside, 1);
    if (!atomic_load(&decoder->closing)) return true;
    atomic_fetch_sub(&decoder->inside, 1);
    return false;
}

void pe_lock(poyoedge_decoder *decoder) {
    atomic_fetch_add(&decoder->waiting, 1);
    pthread_mutex_lock(&decoder->lock);
    atomic_fetch_sub(&decoder->waiting, 1);
}

void pe_unlock(poyoedge_decoder *decoder) { pthread_mutex_unlock(&decoder->lock); }

void pe_leave(poyoedge_decoder *decoder) { atomic_fetch_sub(&decoder->inside, 1); }

/* What is wrong with the options, or NULL. */
static const char *wrong(const poyoedge_options *o) {
    if (!o->session) return "session: expected a file of poyo-edge freeze, got NULL";
    if (o->threads < 1 || o->threads > 1024) return "threads: expected 1 to 1024";
    if (o->capacity < 1 || o->capacity > 1u << 28) return "capacity: expected 1 to 2^28 spikes";
    if (!(o->tick_rate_hz >= 0) || !isfinite(o->tick_rate_hz))
        return "tick_rate_hz: expected a number > 0, or 0 for seconds";
    if (!(o->future_limit_s > 0)) return "future_limit_s: expected seconds > 0";
    if (!(o->hold_s >= 0) || !isfinite(o->hold_s)) return "hold_s: expected seconds >= 0";
    if (!(o->decay_s >= 0) || !isfinite(o->decay_s)) return "decay_s: expected seconds >= 0";
    if (!(o->silence_s >= 0) || !isfinite(o->silence_s)) return "silence_s: expected seconds >= 0";
    if (!(o->missed_spikes > 0)) return "missed_spikes: expected spikes > 0";
    return NULL;
}

/* A lock whose holder runs at the priority of who waits for it, where the system has that. */
static bool lock_init(pthread_mutex_t *lock) {
    pthread_mutexattr_t how;
    if (pthread_mutexattr_init(&how) != 0) return false;
    pthread_mutexattr_setprotocol(&how, PTHREAD_PRIO_INHERIT);
    bool done = pthread_mutex_init(lock, &how) == 0 || pthread_mutex_init(lock, NULL) == 0;
    pthread_mutexattr_destroy(&how);
    return done;
}

static void clock_init(poyoedge_decoder *decoder, const poyoedge_options *options) {
    pe_clock *c = &decoder->clock;
    c->ticks = options->tick_rate_hz > 0;
    c->rate_hz = c->ticks ? options->tick_rate_hz : 1.0;
    c->window_s = decoder->session->frozen.window_s;
    c->window = pe_span(c, c->window_s);
    c->future = pe_span(c, options->future_limit_s);
}

/* Sizes that options have had: this one, and without the library of our own operators. */
static bool known_size(uint32_t size) {
    return size == sizeof(poyoedge_options) || size == offsetof(poyoedge_options, kernels);
}

static const char *kernels_of(const poyoedge_options *options) {
    return options->size == sizeof *options ? options->kernels : NULL;
}

static int start(poyoedge_decoder *decoder, const poyoedge_options *options, char *why,
                 size_t why_size) {
    decoder->threads = options->threads;
    decoder->warm_spikes = options->warm_spikes ? options->warm_spikes : UINT32_MAX;
    decoder->has_lock = lock_init(&decoder->lock);
    decoder->has_error_lock = lock_init(&decoder->error_lock);
    decoder->tables = calloc(PE_MOST_TABLES, sizeof *decoder->tables);
    if (!decoder->has_lock || !decoder->has_error_lock || !decoder->tables) return POYOEDGE_MEMORY;
    int code = pe_ort_load(&decoder->ort, options->onnxruntime, why, why_size);
    pe_session *session = NULL;
    if (code == POYOEDGE_OK && kernels_of(options))
        code = pe_ort_load_kernels(&decoder->ort, kernels_of(options), why, why_size);
    if (code == POYOEDGE_OK)
        code = pe_session_open(decoder, options->session, &session, why, why_size);
    if (code != POYOEDGE_OK) return code;
    pe_session_use(decoder, session);
    clock_init(decoder, options);
    decoder->dim_out = session->frozen.dim_out;
    decoder->failsafe = (pe_failsafe){
        .limits = {options->hold_s, options->decay_s, options->missed_spikes, options->silence_s},
        .dim_out = decoder->dim_out,
        .good = calloc(decoder->dim_out, sizeof(double)),
    };
    uint32_t *seen = calloc(session->units->n, sizeof *seen);
    bool intake = pe_intake_init(&decoder->intake, &decoder->clock, options->capacity);
    pe_intake_use(&decoder->intake, &seen, session->units->n);
    bool queue = pe_queue_init(&decoder->queue);
    if (!intake || !queue || !decoder->intake.seen || !decoder->failsafe.good)
        return POYOEDGE_MEMORY;
    return pe_window_init(&decoder->ort, &decoder->window, session->frozen.max_spikes,
                          decoder->dim_out);
}

static void release(poyoedge_decoder *decoder) {
    if (decoder->ort.api) pe_window_free(&decoder->ort, &decoder->window);
    pe_session_free(decoder, decoder->session);
    pe_ort_unload(&decoder->ort);
    for (uint32_t i = 0; i < decoder->n_tables; i++) {
        pe_units_free(&decoder->tables[i].units);
        free(decoder->tables[i].names);
    }
    free(decoder->tables);
    pe_intake_free(&decoder->intake);
    pe_queue_free(&decoder->queue);
    free(decoder->failsafe.good);
    if (decoder->has_lock) pthread_mutex_destroy(&decoder->lock);
    if (decoder->has_error_lock) pthread_mutex_destroy(&decoder->error_lock);
    free(decoder);
}

int poyoedge_open(const poyoedge_options *options, poyoedge_decoder **decoder, char *why,
                  size_t why_size) {
    if (!why) why_size = 0;
    if (why_size) why[0] = 0;
    const char *problem = NULL;
    if (decoder) *decoder = NULL;
    if (!options || !decoder)
        problem = "open: expected options and a place for the decoder, got NULL";
    else if (!known_size(options->size))
        problem = "size: expected sizeof(poyoedge_options) of this library; begin with "
                  "POYOEDGE_OPTIONS, and compile with the header of the library";
    else
        problem = wrong(options);
    if (problem) {
        if (why_size) snprintf(why, why_size, "%s", problem);
        return POYOEDGE_USAGE;
    }
    poyoedge_decoder *opened = calloc(1, sizeof *opened);
    int code = opened ? start(opened, options, why, why_size) : POYOEDGE_MEMORY;
    if (code == POYOEDGE_OK) {
        *decoder = opened;
        return code;
    }
    if (code == POYOEDGE_MEMORY && why_size)
        snprintf(why, why_size, "open: expected memory for a decoder, got none");
    if (opened) release(opened);
    return code;
}

void poyoedge_close(poyoedge_decoder **decoder) {
    const struct timespec pause = {.tv_nsec = 200000};
    if (!decoder || !*decoder) return;
    poyoedge_decoder *closed = *decoder;
    *decoder = NULL;
    atomic_store(&closed->closing, true);
    while (atomic_load(&closed->inside))
        nanosleep(&pause, NULL);
    release(closed);
}
