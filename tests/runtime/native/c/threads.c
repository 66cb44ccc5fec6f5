/* One thread pushes, one decodes, one swaps, two look: under a sanitizer this finds what races.
 *
 * threads LIBRARY A.onnx B.onnx SECONDS: prints decodes, pushes and swaps; 1 if anything was wrong.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../../../../runtime/native/poyoedge.h"

static poyoedge_decoder *decoder;
static _Atomic int stop;
static _Atomic long n_decodes, n_pushes, n_swaps, n_wrong, n_pushed, n_busy;
static const char *files[2];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void wrong(const char *what) {
    char why[512];
    poyoedge_error(decoder, why, sizeof why);
    fprintf(stderr, "%s: %s\n", what, why);
    n_wrong++;
}

static void *push(void *unused) {
    double times[200];
    int32_t rows[200];
    (void)unused;
    for (unsigned k = 0; !stop; k++) {
        double t = now();
        for (int i = 0; i < 200; i++) {
            times[i] = t - (double)((k * 7 + (unsigned)i * 13) % 100) * 1e-4;
            rows[i] = (int32_t)((k + (unsigned)i) % 10);
        }
        if (poyoedge_push(decoder, times, rows, 200) != POYOEDGE_OK) wrong("push");
        n_pushes++;
        n_pushed += 200;
        if (k % 8) continue; /* bursts, and pauses between */
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return NULL;
}

static void *decode(void *unused) {
    double value[2];
    (void)unused;
    while (!stop) {
        poyoedge_result result = {.size = sizeof result};
        int code = poyoedge_decode(decoder, now(), 0, value, 2, &result);
        if (code == POYOEDGE_BUSY)
            n_busy++;
        else if (code != POYOEDGE_OK)
            wrong("decode");
        if (!isfinite(value[0]) || !isfinite(value[1])) wrong("value");
        n_decodes++;
    }
    return NULL;
}

static void *swap(void *unused) {
    (void)unused;
    for (int i = 1; !stop; i++) {
        if (poyoedge_swap(decoder, files[i % 2]) != POYOEDGE_OK) wrong("swap");
        n_swaps++;
    }
    return NULL;
}

static void *look(void *unused) {
    const char *names[] = {"tiny_a/unit_00", "tiny_b/unit_09", "nobody"};
    int32_t rows[3];
    (void)unused;
    while (!stop) {
        poyoedge_state state = {.size = sizeof state};
        if (poyoedge_stats(decoder, &state) != POYOEDGE_OK) wrong("stats");
        if (poyoedge_rows(decoder, names, 3, rows) != POYOEDGE_OK) wrong("rows");
        double spare[2]; /* a second thread in decode: refused, or alone by chance */
        int code = poyoedge_decode(decoder, now(), 0, spare, 2, NULL);
        if (code == POYOEDGE_BUSY)
            n_busy++;
        else if (code != POYOEDGE_OK)
            wrong("decode beside");
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return NULL;
}

int main(int n, char **words) {
    void *(*const work[])(void *) = {push, decode, swap, look, look};
    pthread_t threads[5];
    char why[512];
    if (n != 5) return 2;
    poyoedge_options options = POYOEDGE_OPTIONS;
    options.onnxruntime = words[1];
    options.session = files[0] = words[2];
    files[1] = words[3];
    options.capacity = 4096;
    if (poyoedge_open(&options, &decoder, why, sizeof why) != POYOEDGE_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    for (int i = 0; i < 5; i++)
        pthread_create(&threads[i], NULL, work[i], NULL);
    double seconds = atof(words[4]);
    nanosleep(&(struct timespec){(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)}, NULL);
    stop = 1;
    for (int i = 0; i < 5; i++)
        pthread_join(threads[i], NULL);
    poyoedge_state state = {.size = sizeof state};
    if (poyoedge_stats(decoder, &state) != POYOEDGE_OK) wrong("stats");
    poyoedge_counters c = state.counters;
    if (c.received != (uint64_t)n_pushed) wrong("a spike was lost count of");
    if (c.received != c.accepted + c.not_finite + c.unknown_unit + c.late + c.future + c.duplicate)
        wrong("counters do not add up");
    poyoedge_close(&decoder);
    if (poyoedge_push(decoder, NULL, NULL, 0) != POYOEDGE_USAGE) wrong("push after close");
    printf("%ld decodes, %ld pushes, %ld swaps, %ld refused, %ld wrong\n", n_decodes, n_pushes,
           n_swaps, n_busy, n_wrong);
    return n_wrong != 0;
}
