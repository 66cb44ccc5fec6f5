#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../poyoedge.h"

static int failed(const pe_ort *ort, OrtStatus *status, const char *what, char *why,
                  size_t why_size) {
    if (!status) return POYOEDGE_OK;
    if (why_size)
        snprintf(why, why_size, "ONNX Runtime %s: %s: %s", ort->version, what,
                 ort->api->GetErrorMessage(status));
    ort->api->ReleaseStatus(status);
    return POYOEDGE_ENVIRONMENT;
}

int pe_ort_open(pe_ort *ort, const void *model, size_t size, unsigned threads, OrtSession **session,
                char *why, size_t why_size) {
    const pe_ort_api *api = ort->api;
    OrtSessionOptions *options = NULL;
    OrtStatus *status = api->CreateSessionOptions(&options);
    if (!status) status = api->SetSessionLogSeverityLevel(options, PE_ORT_LOG_ERROR);
    if (!status) status = api->SetIntraOpNumThreads(options, (int)threads);
    if (!status) status = api->SetInterOpNumThreads(options, 1);
    /* It keeps a plan for each new number of spikes: memory grows, and nothing gets faster. */
    if (!status) status = api->DisableMemPattern(options);
    if (!status && ort->add_kernels) status = ort->add_kernels(options, ort->base);
    if (!status) status = api->CreateSessionFromArray(ort->env, model, size, options, session);
    if (options) api->ReleaseSessionOptions(options);
    return failed(ort, status, "the frozen session cannot be opened", why, why_size);
}

int pe_window_init(pe_ort *ort, pe_window *window, size_t max_spikes, size_t dim_out) {
    const int64_t shape[] = {1, 1, (int64_t)dim_out};
    *window = (pe_window){
        .times = calloc(max_spikes, sizeof(float)),
        .rows = calloc(max_spikes, sizeof(int32_t)),
        .value = calloc(dim_out, sizeof(float)),
    };
    if (!window->times || !window->rows || !window->value) return POYOEDGE_MEMORY;
    return failed(ort,
                  ort->api->CreateTensorWithDataAsOrtValue(ort->memory, window->value,
                                                           dim_out * sizeof(float), shape, 3,
                                                           PE_ORT_FLOAT, &window->output),
                  "no tensor", NULL, 0);
}

void pe_window_free(pe_ort *ort, pe_window *window) {
    if (window->output) ort->api->ReleaseValue(window->output);
    free(window->times);
    free(window->rows);
    free(window->value);
    *window = (pe_window){0};
}

OrtStatus *pe_ort_run(const pe_ort *ort, OrtSession *session, pe_window *window, size_t n) {
    static const char *const inputs[] = {"spike_unit", "spike_time"}, *const outputs[] = {"value"};
    const pe_ort_api *api = ort->api;
    const int64_t shape[] = {1, (int64_t)n};
    OrtValue *values[2] = {NULL, NULL};
    OrtStatus *status = api->CreateTensorWithDataAsOrtValue(
        ort->memory, window->rows, n * sizeof(int32_t), shape, 2, PE_ORT_INT32, &values[0]);
    if (!status)
        status = api->CreateTensorWithDataAsOrtValue(ort->memory, window->times, n * sizeof(float),
                                                     shape, 2, PE_ORT_FLOAT, &values[1]);
    if (!status)
        status = api->Run(session, NULL, inputs, (const OrtValue *const *)values, 2, outputs, 1,
                          &window->output);
    for (int i = 0; i < 2; i++)
        if (values[i]) api->ReleaseValue(values[i]);
    return status;
}
