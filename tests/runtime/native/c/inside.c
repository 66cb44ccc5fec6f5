/* What only the library itself can reach, for tests that hold it to Python's or numpy's. */
#include <stdlib.h>
#include <string.h>

#include "../../../../runtime/native/src/file/frozen.h"
#include "../../../../runtime/native/src/file/sha256.h"
#include "../../../../runtime/native/src/stream/latency.h"

double inside_sum(const float *values, size_t n);
double inside_sum(const float *values, size_t n) { return (double)pe_float32_sum(values, n); }

void inside_sha256(const void *data, size_t n, char *hexadecimal);
void inside_sha256(const void *data, size_t n, char *hexadecimal) {
    pe_sha256 sha;
    pe_sha256_init(&sha);
    pe_sha256_add(&sha, data, n / 3);
    pe_sha256_add(&sha, (const char *)data + n / 3, n - n / 3);
    pe_sha256_end(&sha, hexadecimal);
}

void inside_latency(const int64_t *ns, size_t n, int64_t *counts, double *percentiles_ms);
void inside_latency(const int64_t *ns, size_t n, int64_t *counts, double *percentiles_ms) {
    static pe_latency latency;
    memset(&latency, 0, sizeof latency);
    for (size_t i = 0; i < n; i++)
        pe_latency_add(&latency, ns[i]);
    memcpy(counts, latency.counts, sizeof latency.counts);
    const double percents[] = {50, 90, 99, 99.9};
    for (int i = 0; i < 4; i++)
        percentiles_ms[i] = pe_latency_percentile_ms(&latency, percents[i]);
}

/* Whether the guard takes an ONNX file; why not, if it does not. */
int inside_guard(const uint8_t *data, size_t n, char *why, size_t why_size);
int inside_guard(const uint8_t *data, size_t n, char *why, size_t why_size) {
    pe_interface found;
    const char *problem = pe_guard((pe_bytes){data, n}, &found);
    if (problem && why_size) {
        size_t length = strlen(problem) < why_size - 1 ? strlen(problem) : why_size - 1;
        memcpy(why, problem, length);
        why[length] = 0;
    }
    return problem == NULL;
}

int inside_read(const char *path, const uint8_t *data, size_t n, char *why, size_t why_size);
int inside_read(const char *path, const uint8_t *data, size_t n, char *why, size_t why_size) {
    pe_frozen frozen;
    uint8_t *copy = malloc(n ? n : 1);
    if (!copy) return -1;
    if (n) memcpy(copy, data, n);
    int code = pe_frozen_read(&frozen, path, copy, n, why, why_size);
    pe_frozen_free(&frozen);
    return code;
}
