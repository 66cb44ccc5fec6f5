/* What libFuzzer feeds to the C library: files that claim to be frozen sessions, and pushes.
 *
 * The first byte chooses: 0 a file as it is, 1 a file whose digest is set right, so that what is in
 * it counts, otherwise pushes, decodes and swaps on a stand-in for ONNX Runtime.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../runtime/native/poyoedge.h"
#include "../runtime/native/src/file/frozen.h"
#include "../runtime/native/src/file/sha256.h"

int LLVMFuzzerInitialize(int *n_words, char ***words);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *session, *library;

int LLVMFuzzerInitialize(int *n_words, char ***words) {
    (void)n_words;
    (void)words;
    session = getenv("FUZZ_SESSION");
    library = getenv("FUZZ_LIBRARY");
    if (session && library) return 0;
    fprintf(stderr, "expected FUZZ_SESSION and FUZZ_LIBRARY in the environment\n");
    exit(2);
}

static void read_file(const uint8_t *data, size_t size, bool seal) {
    pe_frozen frozen;
    char why[256];
    uint8_t *copy = malloc(size + 1);
    if (!copy) return;
    memcpy(copy, data, size);
    if (seal && size > 64) {
        char digest[65];
        pe_sha256 sha;
        memset(copy + size - 64, '0', 64);
        pe_sha256_init(&sha);
        pe_sha256_add(&sha, copy, size);
        pe_sha256_end(&sha, digest);
        memcpy(copy + size - 64, digest, 64);
    }
    pe_frozen_read(&frozen, "fuzz.onnx", copy, size, why, sizeof why);
    pe_frozen_free(&frozen);
}

/* Numbers from the bytes, zeros behind their end. */
static uint64_t number(const uint8_t **data, size_t *size, size_t bytes) {
    uint64_t value = 0;
    for (; bytes && *size; bytes--, ++*data, --*size)
        value = value << 8 | **data;
    return value;
}

static void require(bool fine) {
    if (!fine) abort();
}

static void stream(const uint8_t *data, size_t size, uint8_t how) {
    poyoedge_options options = POYOEDGE_OPTIONS;
    poyoedge_decoder *decoder;
    options.session = session;
    options.onnxruntime = library;
    options.capacity = 1 + how * 3u;
    options.tick_rate_hz = how & 1 ? 1000 : how & 2 ? 1000.5 : 0;
    require(poyoedge_open(&options, &decoder, NULL, 0) == POYOEDGE_OK);
    while (size) {
        double seconds[64], value[2];
        int64_t ticks[64];
        int32_t rows[64];
        uint64_t step = number(&data, &size, 1), n = step & 63;
        for (uint64_t i = 0; i < n; i++) {
            uint64_t wide = number(&data, &size, step & 64 ? 8 : 2);
            ticks[i] = (int64_t)wide;
            seconds[i] = (double)(int64_t)wide / 1000;
            if (step & 64) memcpy(&seconds[i], &wide, sizeof wide);
            rows[i] = (int32_t)((uint32_t)number(&data, &size, step & 64 ? 4 : 1) - 1u);
        }
        int64_t now = (int64_t)number(&data, &size, 2);
        poyoedge_result result = {.size = sizeof result};
        if (options.tick_rate_hz > 0) {
            require(poyoedge_push_ticks(decoder, ticks, rows, n) == POYOEDGE_OK);
            require(poyoedge_decode_ticks(decoder, now, 0, value, 2, &result) == POYOEDGE_OK);
        } else {
            require(poyoedge_push(decoder, seconds, rows, n) == POYOEDGE_OK);
            require(poyoedge_decode(decoder, (double)now / 1000, 0, value, 2, &result) ==
                    POYOEDGE_OK);
        }
        require(value[0] - value[0] == 0 && value[1] - value[1] == 0);
        require(result.status <= POYOEDGE_INVALID);
        if (step == 255) require(poyoedge_swap(decoder, session) == POYOEDGE_OK);
    }
    poyoedge_state state = {.size = sizeof state};
    require(poyoedge_stats(decoder, &state) == POYOEDGE_OK);
    const poyoedge_counters *c = &state.counters;
    require(c->received ==
            c->accepted + c->not_finite + c->unknown_unit + c->late + c->future + c->duplicate);
    poyoedge_close(&decoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    if (data[0] < 2)
        read_file(data + 1, size - 1, data[0] == 1);
    else
        stream(data + 1, size - 1, data[0]);
    return 0;
}
