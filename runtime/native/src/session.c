/* Sessions: opened and warmed up beforehand, exchanged between two decodes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "decoder.h"

static int refuse(char *why, size_t why_size, const char *path, const char *problem, int code) {
    if (why_size) snprintf(why, why_size, "%s: %s", path, problem);
    return code;
}

/* Whether it can follow the one in use; NULL, or what is wrong. */
static const char *misfit(const poyoedge_decoder *decoder, const pe_frozen *frozen) {
    const pe_session *before = decoder->session;
    if (!before) return NULL;
    if (strcmp(before->frozen.core_hash, frozen->core_hash) != 0)
        return "expected a session of the core that the decoder was opened with, got one of "
               "another; open a decoder for it";
    if (before->frozen.dim_out != frozen->dim_out || before->frozen.window_s != frozen->window_s ||
        before->frozen.max_spikes != frozen->max_spikes)
        return "expected outputs, window and max_spikes of the session in use, got others";
    return NULL;
}

/* Windows of several sizes, so that the first real one pays for no set-up. */
static int warm_up(poyoedge_decoder *decoder, pe_session *session, char *why, size_t why_size) {
    static const size_t sizes[] = {0, 256, 1024};
    const pe_frozen *frozen = &session->frozen;
    size_t most =
        frozen->max_spikes < decoder->warm_spikes ? frozen->max_spikes : decoder->warm_spikes;
    pe_window window;
    int code = pe_window_init(&decoder->ort, &window, most, frozen->dim_out);
    for (int i = 0; code == POYOEDGE_OK && i < 4; i++) {
        size_t n = i < 3 && sizes[i] < most ? sizes[i] : most;
        for (size_t at = 0; at < n; at++)
            window.times[at] = (float)(frozen->window_s * (double)at / (double)n);
        OrtStatus *status = pe_ort_run(&decoder->ort, session->model, &window, n);
        if (!status) continue;
        code = refuse(why, why_size, "ONNX Runtime", decoder->ort.api->GetErrorMessage(status),
                      POYOEDGE_ENVIRONMENT);
        decoder->ort.api->ReleaseStatus(status);
    }
    pe_window_free(&decoder->ort, &window);
    return code;
}

/* Where the units of a session stand among those that were used; PE_MOST_TABLES: nowhere yet. */
static uint32_t table_of(const poyoedge_decoder *decoder, const pe_units *units) {
    for (uint32_t i = 0; i < decoder->n_tables; i++)
        if (pe_units_equal(&decoder->tables[i].units, units)) return i;
    return PE_MOST_TABLES;
}

int pe_session_open(poyoedge_decoder *decoder, const char *path, pe_session **opened, char *why,
                    size_t why_size) {
    pe_session *session = calloc(1, sizeof *session);
    if (!session) return POYOEDGE_MEMORY;
    pe_frozen *frozen = &session->frozen;
    int code = pe_frozen_open(frozen, path, why, why_size);
    const char *problem = code == POYOEDGE_OK ? misfit(decoder, frozen) : NULL;
    if (problem) code = refuse(why, why_size, path, problem, POYOEDGE_FILE);
    if (code == POYOEDGE_OK && decoder->n_tables == PE_MOST_TABLES &&
        table_of(decoder, &frozen->units) == PE_MOST_TABLES)
        code = refuse(why, why_size, path,
                      "expected at most 2047 sets of units in a decoder's "
                      "life, got one more; open it again",
                      POYOEDGE_USAGE);
    if (code == POYOEDGE_OK && frozen->own_operators && !decoder->ort.add_kernels)
        code = refuse(why, why_size, path,
                      "expected standard operators, got our own; name their library in "
                      "options.kernels, or freeze without --kernels",
                      POYOEDGE_USAGE);
    if (code == POYOEDGE_OK)
        code = pe_ort_open(&decoder->ort, frozen->data, frozen->size, decoder->threads,
                           &session->model, why, why_size);
    pe_frozen_drop_data(frozen);
    if (code == POYOEDGE_OK) code = warm_up(decoder, session, why, why_size);
    session->silence = (pe_silence){.stated_hz = frozen->stated_hz, .heard_hz = INFINITY};
    *opened = code == POYOEDGE_OK ? session : NULL;
    if (code != POYOEDGE_OK) pe_session_free(decoder, session);
    return code;
}

void pe_session_free(poyoedge_decoder *decoder, pe_session *session) {
    if (!session) return;
    if (session->model) decoder->ort.api->ReleaseSession(session->model);
    pe_frozen_free(&session->frozen);
    free(session);
}

void pe_session_use(poyoedge_decoder *decoder, pe_session *session) {
    uint32_t table = table_of(decoder, &session->frozen.units);
    if (table == PE_MOST_TABLES) { /* the units are the decoder's from now on */
        table = decoder->n_tables++;
        decoder->tables[table] = (pe_table){session->frozen.units, session->frozen.names};
        session->frozen.units = (pe_units){0};
        session->frozen.names = NULL;
    }
    session->mark = table + 1;
    session->units = &decoder->tables[table].units;
    session->takes_integers = table == 0;
    decoder->session = session;
}

/* The rows of a session's units in another one, -1 for those not in it. */
static int32_t *rows_in(const pe_units *before, const pe_units *units) {
    int32_t *rows = malloc(before->n * sizeof *rows);
    for (size_t i = 0; rows && i < before->n; i++)
        rows[i] = (int32_t)pe_units_find_same(units, before, i);
    return rows;
}

static void wait_until_unused(poyoedge_decoder *decoder, const pe_session *session) {
    const struct timespec pause = {.tv_nsec = 200000};
    for (;;) {
        pe_lock(decoder);
        bool used = decoder->running == session;
        pe_unlock(decoder);
        if (!used) return;
        nanosleep(&pause, NULL);
    }
}

static int exchange(poyoedge_decoder *decoder, pe_session *session) {
    pe_session *before = decoder->session; /* no other thread changes it */
    const pe_units *units = &session->frozen.units;
    int32_t *new_row = rows_in(before->units, units);
    uint32_t *seen = calloc(units->n, sizeof *seen);
    if (!new_row || !seen) {
        free(new_row);
        free(seen);
        return POYOEDGE_MEMORY;
    }
    pe_lock(decoder);
    pe_drain(decoder);
    decoder->intake.counters.session_change += pe_ring_remap(&decoder->intake.ring, new_row);
    pe_intake_use(&decoder->intake, &seen, units->n);
    pe_session_use(decoder, session);
    pe_unlock(decoder);
    wait_until_unused(decoder, before);
    pe_session_free(decoder, before);
    free(new_row);
    free(seen);
    return POYOEDGE_OK;
}

int poyoedge_swap(poyoedge_decoder *decoder, const char *path) {
    if (!decoder || !pe_enter(decoder)) return POYOEDGE_USAGE;
    char why[512] = "swap: expected memory for another session, got none";
    int code;
    if (!path) {
        code = pe_fail(decoder, POYOEDGE_USAGE, "swap: expected a file, got NULL");
    } else if (atomic_exchange(&decoder->swapping, true)) {
        code = pe_fail(decoder, POYOEDGE_BUSY,
                       "swap: expected one thread that swaps, got a second one meanwhile");
    } else {
        pe_session *session;
        code = pe_session_open(decoder, path, &session, why, sizeof why);
        if (code == POYOEDGE_OK) {
            code = exchange(decoder, session);
            if (code != POYOEDGE_OK) pe_session_free(decoder, session);
        }
        if (code != POYOEDGE_OK) pe_fail(decoder, code, why);
        atomic_store(&decoder->swapping, false);
    }
    pe_leave(decoder);
    return code;
}
