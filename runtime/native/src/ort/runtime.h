/* ONNX Runtime, loaded at run time, and a model opened with it. */
#ifndef PE_ORT_RUNTIME_H
#define PE_ORT_RUNTIME_H

#include <stdbool.h>

#include "api.h"

typedef struct {
    void *library;
    const pe_ort_api *api;
    OrtEnv *env;
    OrtMemoryInfo *memory;
    char version[32];
    const pe_ort_base *base;
    OrtStatus *(*add_kernels)(OrtSessionOptions *options, const pe_ort_base *base); /* or NULL */
} pe_ort;

/* Load a library, or a folder's, or (NULL) what the loader finds. POYOEDGE_OK, or a code and why.
 */
int pe_ort_load(pe_ort *ort, const char *path, char *why, size_t why_size);
/* Let models that are opened from now on have operators of our own, from this library. */
int pe_ort_load_kernels(pe_ort *ort, const char *path, char *why, size_t why_size);
void pe_ort_unload(pe_ort *ort);

/* Open a model. */
int pe_ort_open(pe_ort *ort, const void *model, size_t size, unsigned threads, OrtSession **session,
                char *why, size_t why_size);

/* What a window is decoded from, and to; kept for a decoder's life. */
typedef struct {
    float *times; /* seconds from the window's start */
    int32_t *rows;
    float *value;
    OrtValue *output; /* over value */
} pe_window;

int pe_window_init(pe_ort *ort, pe_window *window, size_t max_spikes, size_t dim_out);
void pe_window_free(pe_ort *ort, pe_window *window);

/* Decode n spikes; NULL, or a status to release that says what failed. */
OrtStatus *pe_ort_run(const pe_ort *ort, OrtSession *session, pe_window *window, size_t n);

#endif
