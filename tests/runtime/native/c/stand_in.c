/* A library in ONNX Runtime's place, for tests: fast, without its threads, and bad on demand.
 *
 * A value follows from the spikes by a formula that tests know. It fails where n % 13 == 7 and
 * gives NaN where n % 17 == 5, unless compiled with STAND_IN_GOOD. STAND_IN_API: the newest API
 * that it has; STAND_IN_SLEEP_US: how long a window takes; STAND_IN_MOST: it fails with more spikes.
 */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../../../runtime/native/src/ort/api.h"

#ifndef STAND_IN_API
#define STAND_IN_API 21
#endif
#ifndef STAND_IN_MOST
#define STAND_IN_MOST SIZE_MAX
#endif
#ifndef STAND_IN_SLEEP_US
#define STAND_IN_SLEEP_US 0
#endif

struct OrtValue {
    void *data;
    size_t n;
    bool taken;
};

/* Values come from here, so that a window allocates nothing, as a test counts. */
static struct OrtValue values[64];

struct OrtStatus {
    const char *message;
};
static OrtStatus failure = {"it was told to fail"};

static const char *message(const OrtStatus *status) { return status->message; }

static OrtStatus *create_env(int level, const char *name, OrtEnv **out) {
    (void)level;
    (void)name;
    *out = malloc(1);
    return NULL;
}

static OrtStatus *create_options(OrtSessionOptions **out) {
    *out = malloc(1);
    return NULL;
}

static OrtStatus *set_nothing(OrtSessionOptions *options) {
    (void)options;
    return NULL;
}

static OrtStatus *set_number(OrtSessionOptions *options, int n) {
    (void)options;
    (void)n;
    return NULL;
}

static OrtStatus *create_session(const OrtEnv *env, const void *model, size_t size,
                                 const OrtSessionOptions *options, OrtSession **out) {
    (void)env;
    (void)model;
    (void)size;
    (void)options;
    *out = malloc(1);
    return NULL;
}

static OrtStatus *create_tensor(const OrtMemoryInfo *info, void *data, size_t n_bytes,
                                const int64_t *shape, size_t n_axes, int type, OrtValue **out) {
    (void)info;
    (void)shape;
    (void)n_axes;
    (void)type;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        if (__atomic_test_and_set(&values[i].taken, __ATOMIC_ACQUIRE)) continue;
        values[i].data = data;
        values[i].n = n_bytes / 4;
        *out = &values[i];
        return NULL;
    }
    return &failure;
}

static void release_value(OrtValue *value) { __atomic_clear(&value->taken, __ATOMIC_RELEASE); }

static OrtStatus *run(OrtSession *session, const OrtRunOptions *options,
                      const char *const *input_names, const OrtValue *const *inputs,
                      size_t n_inputs, const char *const *output_names, size_t n_outputs,
                      OrtValue **outputs) {
    (void)session;
    (void)options;
    (void)input_names;
    (void)n_inputs;
    (void)output_names;
    (void)n_outputs;
    if (STAND_IN_SLEEP_US)
        nanosleep(&(struct timespec){.tv_nsec = STAND_IN_SLEEP_US * 1000L}, NULL);
    size_t n = inputs[0]->n;
    if (n > STAND_IN_MOST) return &failure;
    const int32_t *units = inputs[0]->data;
    const float *times = inputs[1]->data;
    float *value = outputs[0]->data, sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += times[i];
        sum += (float)units[i] * 0.25f;
    }
    for (size_t i = 0; i < outputs[0]->n; i++)
        value[i] = sum + (float)i;
#ifndef STAND_IN_GOOD
    if (n % 17 == 5) value[0] = NAN;
    if (n % 13 == 7) return &failure;
#endif
    return NULL;
}

static OrtStatus *create_memory(int allocator, int memory, OrtMemoryInfo **out) {
    (void)allocator;
    (void)memory;
    *out = malloc(1);
    return NULL;
}

static void free_env(OrtEnv *env) { free(env); }
static void free_status(OrtStatus *status) { (void)status; }
static void free_memory(OrtMemoryInfo *memory) { free(memory); }
static void free_session(OrtSession *session) { free(session); }
static void free_options(OrtSessionOptions *options) { free(options); }

static const pe_ort_api api = {
    .GetErrorMessage = message,
    .CreateEnv = create_env,
    .CreateSessionFromArray = create_session,
    .Run = run,
    .CreateSessionOptions = create_options,
    .DisableMemPattern = set_nothing,
    .SetSessionLogSeverityLevel = set_number,
    .SetIntraOpNumThreads = set_number,
    .SetInterOpNumThreads = set_number,
    .CreateTensorWithDataAsOrtValue = create_tensor,
    .CreateCpuMemoryInfo = create_memory,
    .ReleaseEnv = free_env,
    .ReleaseStatus = free_status,
    .ReleaseMemoryInfo = free_memory,
    .ReleaseSession = free_session,
    .ReleaseValue = release_value,
    .ReleaseSessionOptions = free_options,
};

static const pe_ort_api *get_api(uint32_t version) { return version <= STAND_IN_API ? &api : NULL; }

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
static const char *get_version(void) { return "1." TEXT(STAND_IN_API) ".0-stand-in"; }

static const pe_ort_base base = {get_api, get_version};

const pe_ort_base *OrtGetApiBase(void);
const pe_ort_base *OrtGetApiBase(void) { return &base; }
