/* allocations LIBRARY A.onnx: how often memory was asked for by pushes and by decodes, after open.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../../../../runtime/native/poyoedge.h"

static long n_asked; /* this program has one thread */

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);

void *malloc(size_t size) {
    n_asked++;
    return __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
    n_asked++;
    return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size) {
    n_asked++;
    return __libc_realloc(old, size);
}

int main(int n, char **words) {
    poyoedge_decoder *decoder;
    poyoedge_options options = POYOEDGE_OPTIONS;
    char why[512];
    if (n != 3) return 2;
    options.onnxruntime = words[1];
    options.session = words[2];
    options.capacity = 2000;
    long before = n_asked, by_push = 0, by_decode = 0;
    if (poyoedge_open(&options, &decoder, why, sizeof why) != POYOEDGE_OK) {
        fprintf(stderr, "%s\n", why);
        return 1;
    }
    long by_open = n_asked - before;
    for (int k = 0; k < 2000; k++) {
        double times[300], value[2], now = 10 + k * 0.02;
        int32_t rows[300];
        for (int i = 0; i < 300; i++) { /* out of order, late, again, unknown */
            times[i] = now - (double)((i * 37 + k) % 300) * (k % 7 ? 1e-4 : 1e-2);
            rows[i] = (i + k) % 14 - 1;
        }
        before = n_asked;
        poyoedge_push(decoder, times, rows, 300);
        by_push += n_asked - before;
        before = n_asked;
        poyoedge_result result = {.size = sizeof result};
        poyoedge_decode(decoder, k % 500 == 499 ? now - 5 : now, 0, value, 2, &result);
        by_decode += n_asked - before;
    }
    printf("%d %ld %ld\n", by_open > 0, by_push, by_decode);
    poyoedge_close(&decoder);
    return 0;
}
