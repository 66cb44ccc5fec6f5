/* soak LIBRARY A.onnx B.onnx WINDOWS EVERY WARM: memory in use after half of the windows, and after
 * all, with a swap every so many windows (0: none) and warm_spikes; at last what of it no file
 * holds.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../../../runtime/native/poyoedge.h"

/* A line of /proc/self/status, in KiB: VmRSS is what is resident, RssAnon what no file holds. */
static long memory(const char *which) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long found = 0;
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, which, strlen(which)) == 0) found = atol(line + strlen(which) + 1);
    if (file) fclose(file);
    return found;
}

int main(int n, char **words) {
    poyoedge_decoder *decoder;
    poyoedge_options options = POYOEDGE_OPTIONS;
    char why[512];
    if (n != 7) return 2;
    options.onnxruntime = words[1];
    options.session = words[2];
    options.capacity = 4096;
    options.warm_spikes = (uint32_t)atol(words[6]);
    if (poyoedge_open(&options, &decoder, why, sizeof why) != POYOEDGE_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    long windows = atol(words[4]), every = atol(words[5]), first = 0;
    unsigned random = 1;
    for (long k = 0; k < windows; k++) {
        double times[64], value[2], now = 10 + (double)k * 0.02;
        int32_t rows[64];
        size_t some = 0;
        for (; some < 64 && (random = random * 1664525u + 1013904223u) >> 28; some++) {
            times[some] = now - (double)(random >> 8 & 1023) * 1e-5;
            rows[some] = (int32_t)(random >> 18 & 15);
        }
        if (poyoedge_push(decoder, times, rows, some) != POYOEDGE_OK) return 1;
        if (poyoedge_decode(decoder, now, 0, value, 2, NULL) != POYOEDGE_OK) return 1;
        if (every && k % every == every - 1 &&
            poyoedge_swap(decoder, words[2 + k / every % 2]) != POYOEDGE_OK)
            return 1;
        if (k == windows / 2) first = memory("VmRSS");
    }
    poyoedge_state state = {.size = sizeof state};
    poyoedge_stats(decoder, &state);
    printf("%ld %ld %lu %lu %ld\n", first, memory("VmRSS"), (unsigned long)state.n_decodes,
           (unsigned long)state.counters.received, memory("RssAnon"));
    poyoedge_close(&decoder);
    return 0;
}
