/* libpoyoedge: decode a frozen session of poyo-edge from a stream of spikes, without Python.
 *
 *     poyoedge_options options = POYOEDGE_OPTIONS;
 *     options.session = "today.onnx";             // poyo-edge freeze ARTIFACT -o today.onnx
 *     poyoedge_decoder *decoder = NULL;
 *     char why[256];
 *     if (poyoedge_open(&options, &decoder, why, sizeof why) != POYOEDGE_OK) ...
 *     poyoedge_push(decoder, seconds, rows, n);             // where spikes come from
 *     poyoedge_decode(decoder, t, 0, value, 2, &result);    // on a timer
 *
 * Rules, statuses and counters are those of docs/runtime.md, and tests hold them to Python's.
 * What is about health, control and the check of the session stays with Python.
 *
 * Threads. One thread pushes and one decodes; they may be the same. A second one in the same
 * function meanwhile gets POYOEDGE_BUSY and changes nothing. The other functions may be called from
 * any thread. After poyoedge_close nobody may hold the old pointer any more; through the caller's
 * own variable, which becomes NULL, later calls give POYOEDGE_USAGE.
 *
 * Real time. After poyoedge_open, push and decode allocate nothing, open nothing and log nothing.
 * push never waits: while a decode copies its window (microseconds), chunks go to a queue. decode
 * may wait for one push that is under way, and for the exchange of a swap (a pass over the spikes
 * kept). That is this library; ONNX Runtime, in the same thread (threads = 1), takes large pieces of
 * memory from an arena that the warm-up fills and small ones from malloc, and gives no bound on its
 * own time. Lock pages with mlockall after poyoedge_open. There is no global state; decoders do not
 * know of each other.
 */
#ifndef POYOEDGE_H
#define POYOEDGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define POYOEDGE_API __attribute__((visibility("default")))
#else
#define POYOEDGE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define POYOEDGE_VERSION "0.1.0"

/* What functions return. The numbers are the exit codes of the command line, where it has them. */
enum {
    POYOEDGE_OK = 0,
    POYOEDGE_USAGE = 2,       /* an argument that cannot be meant */
    POYOEDGE_ENVIRONMENT = 4, /* ONNX Runtime: absent, too old, of another architecture, failed */
    POYOEDGE_FILE = 5,        /* unreadable, damaged, of another schema, of another core */
    POYOEDGE_BUSY = 6,        /* another thread is in the same function */
    POYOEDGE_MEMORY = 7       /* there is not enough */
};

/* How far a value can be trusted. */
typedef enum {
    POYOEDGE_VALID,    /* decoded from a whole window */
    POYOEDGE_WARMUP,   /* decoded, but the stream has not been heard for a whole window */
    POYOEDGE_DEGRADED, /* decoded, with a reservation that the flags name */
    POYOEDGE_HELD,     /* not decoded: the last good value, for at most hold_s */
    POYOEDGE_INVALID   /* not decoded for longer: the last good value fading to zero */
} poyoedge_status;
#define POYOEDGE_N_STATUSES 5

/* Why: bits of poyoedge_result.flags, by the names of docs/runtime.md. */
enum {
    POYOEDGE_FLAG_WARMUP = 1 << 0,
    POYOEDGE_FLAG_CLOCK_RESET = 1 << 1,
    POYOEDGE_FLAG_SILENT = 1 << 2,
    POYOEDGE_FLAG_GAP = 1 << 3,
    POYOEDGE_FLAG_OVER_BUDGET = 1 << 4,
    POYOEDGE_FLAG_OVERFLOW = 1 << 5,
    POYOEDGE_FLAG_STALE_ROWS = 1 << 6,
    POYOEDGE_FLAG_DELAYED = 1 << 7,
    POYOEDGE_FLAG_STREAM_LOST = 1 << 8,
    POYOEDGE_FLAG_BACKEND = 1 << 9
};

typedef struct poyoedge_decoder poyoedge_decoder;

/* Begin with POYOEDGE_OPTIONS. Strings are read during poyoedge_open alone. */
typedef struct {
    uint32_t size;           /* sizeof(poyoedge_options) of the caller */
    uint32_t threads;        /* for one window; 1 computes in the thread that decodes */
    const char *session;     /* a file of poyo-edge freeze */
    const char *onnxruntime; /* the library, or a folder with it; NULL: as the loader finds it */
    double tick_rate_hz;     /* ticks per second if times are integer device ticks; 0: seconds */
    uint32_t capacity;       /* most spikes kept, those of windows to come included */
    uint32_t warm_spikes;    /* memory for windows of so many is held from open on; larger ones ask
                                for it when they come. 0: for the largest of the session */
    double future_limit_s;   /* spikes further ahead of the last decoded time are ignored */
    double hold_s;           /* how long a value is held, ... */
    double decay_s;          /* ... and the time constant of its fading; zero after five of them */
    double missed_spikes;    /* a silence that the rates would have filled so is a lost stream; */
    double silence_s;        /* no shorter one is */
    const char *kernels;     /* poyo_edge_kernels.so, for a session of poyo-edge freeze --kernels;
                                NULL: none. A caller's options may end before this field */
} poyoedge_options;

#define POYOEDGE_OPTIONS                                                                           \
    {sizeof(poyoedge_options), 1, NULL, NULL, 0.0, 1u << 18, 0, 60.0, 0.1, 0.1, 30.0, 0.1, NULL}

/* Set size to sizeof(poyoedge_result) before the call. */
typedef struct {
    uint32_t size;
    uint32_t status; /* a poyoedge_status */
    uint64_t flags;
    uint32_t n_spikes; /* that the value was decoded from */
    uint32_t dim_out;
    double last_spike_s;     /* time of the newest of them; NaN without any, or with ticks */
    int64_t last_spike_tick; /* the same in ticks; INT64_MIN without any, or with seconds */
    int64_t latency_ns;      /* from the call to the result */
} poyoedge_result;

/* Counters since poyoedge_open; each is explained in docs/runtime.md. */
typedef struct {
    uint64_t received, accepted, unknown_unit, late, delayed, future, duplicate, not_finite;
    uint64_t overflow, over_budget, stale_rows, session_change, clock_resets, gaps;
    uint64_t backend_failures;
} poyoedge_counters;

/* Set size to sizeof(poyoedge_state) before the call. */
typedef struct {
    uint32_t size;
    uint32_t n_units, dim_out, max_spikes;
    double window_s;
    poyoedge_counters counters;
    uint64_t statuses[POYOEDGE_N_STATUSES]; /* values of each status */
    uint64_t n_decodes, buffered_spikes;
    double p50_ms, p90_ms, p99_ms, p999_ms, max_ms; /* of decode, to 1.2 % */
    int64_t decoding_since_ns; /* CLOCK_MONOTONIC at the call of a decode that runs; 0: none does */
    int64_t last_decode_ns;    /* CLOCK_MONOTONIC at the end of the last one; 0 before */
    char session_id[256], unit[64], onnxruntime[32]; /* unit: of the values; version in use */
} poyoedge_state;

/* Open a frozen session and warm up: hundreds of milliseconds, and ONNX Runtime's memory.
 * *decoder is NULL unless it returns POYOEDGE_OK; a sentence is in why (may be NULL) then. */
POYOEDGE_API int poyoedge_open(const poyoedge_options *options, poyoedge_decoder **decoder,
                               char *why, size_t why_size);

/* Wait for calls under way, release everything and set *decoder to NULL. */
POYOEDGE_API void poyoedge_close(poyoedge_decoder **decoder);

/* Rows of n unit names in the session in use; -1 for names that it does not have. They know of
 * which session they are: pushed after a swap, they are looked up again by their names. Integers
 * 0, 1, ... are taken too, as rows of the session that the decoder was opened with; while one of
 * other units is in use they count as unknown units and stale rows. */
POYOEDGE_API int poyoedge_rows(poyoedge_decoder *decoder, const char *const *names, size_t n,
                               int32_t *rows);

/* Hand over n spikes in any order. Bad ones are counted and ignored; they are no error.
 * push: seconds, for a decoder without tick_rate_hz; push_ticks: ticks, for one with it. */
POYOEDGE_API int poyoedge_push(poyoedge_decoder *decoder, const double *seconds,
                               const int32_t *rows, size_t n);
POYOEDGE_API int poyoedge_push_ticks(poyoedge_decoder *decoder, const int64_t *ticks,
                                     const int32_t *rows, size_t n);

#define POYOEDGE_STREAM_LOST 1u /* for how: the source is known to have ended */

/* Decode the window that ends before t (seconds) or tick; it should never go back. value takes
 * dim_out numbers in behaviour units, always finite; they are zero where an error is returned.
 * What stream or model did is no error: the status says it. result may be NULL. */
POYOEDGE_API int poyoedge_decode(poyoedge_decoder *decoder, double t, uint32_t how, double *value,
                                 size_t n_value, poyoedge_result *result);
POYOEDGE_API int poyoedge_decode_ticks(poyoedge_decoder *decoder, int64_t tick, uint32_t how,
                                       double *value, size_t n_value, poyoedge_result *result);

/* Decode with another frozen session of the same core from the next window on. All work is done
 * before; one that cannot be used leaves the old one in place. Spikes heard are kept where the new
 * session has a unit of the same name. Returns when no decode uses the old session any more. */
POYOEDGE_API int poyoedge_swap(poyoedge_decoder *decoder, const char *session);

/* Counters, statuses, latencies and what is decoded with. Never waits for ONNX Runtime. */
POYOEDGE_API int poyoedge_stats(poyoedge_decoder *decoder, poyoedge_state *state);

/* The sentence of the last call that failed, "" without any. Returns its length. */
POYOEDGE_API size_t poyoedge_error(poyoedge_decoder *decoder, char *sentence, size_t size);

/* Of the library, like "0.1.0". */
POYOEDGE_API const char *poyoedge_version(void);

#ifdef __cplusplus
}
#endif
#endif
