// What an operator is given: tensors with the shapes that it asks for, or a sentence.
#ifndef PE_READING_H
#define PE_READING_H

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "custom_op.h"
#include "kernels.h"

namespace poyo {

// A size that is not known yet, and that is not 0.
struct Size {
    size_t value = 0;
};

class Reading {
  public:
    Reading(const pe_ort_api *api_, const char *name) : api(api_), operator_(name) {}

    OrtStatus *status = nullptr;

    void refuse(const char *what, const char *expected) {
        char sentence[256];
        std::snprintf(sentence, sizeof sentence, "poyo_edge.%s: %s: expected %s", operator_, what,
                      expected);
        if (!status) status = api->CreateStatus(PE_ORT_INVALID_ARGUMENT, sentence);
    }

    void need(bool holds, const char *what, const char *expected) {
        if (!status && !holds) refuse(what, expected);
    }

    bool passes(OrtStatus *given) {
        if (!given) return true;
        if (status)
            api->ReleaseStatus(given);
        else
            status = given;
        return false;
    }

    // The data of a tensor; its axes are as known, or become known. NULL after a refusal.
    const void *data(const OrtValue *value, const char *name, int type, size_t n_axes,
                     Size *const *axes) {
        OrtTensorTypeAndShapeInfo *info = nullptr;
        int kind = 0;
        size_t count = 0;
        int64_t shape[4] = {};
        void *at = nullptr;
        if (status || !passes(api->GetTensorTypeAndShape(value, &info))) return nullptr;
        if (passes(api->GetTensorElementType(info, &kind)) &&
            passes(api->GetDimensionsCount(info, &count))) {
            need(kind == type && count == n_axes, name, "another type or number of axes");
            if (!status) passes(api->GetDimensions(info, shape, n_axes));
        }
        api->ReleaseTensorTypeAndShapeInfo(info);
        for (size_t i = 0; i < n_axes && !status; i++) {
            if (!axes[i]->value) axes[i]->value = static_cast<size_t>(shape[i]);
            need(shape[i] == static_cast<int64_t>(axes[i]->value), name, "another shape");
        }
        if (status || !passes(api->GetTensorMutableData(const_cast<OrtValue *>(value), &at)))
            return nullptr;
        return at;
    }

    // A weight, which has to be a constant of the graph.
    const float *weight(const OrtKernelInfo *info, size_t index, const char *name, Size *a,
                        Size *b = nullptr, Size *c = nullptr) {
        Size *const axes[] = {a, b, c};
        int constant = 0;
        const OrtValue *value = nullptr;
        if (status ||
            !passes(api->KernelInfoGetConstantInput_tensor(info, index, &constant, &value)))
            return nullptr;
        need(constant && value, name, "a constant of the graph");
        return static_cast<const float *>(
            data(value, name, PE_ORT_FLOAT, 1 + (b != nullptr) + (c != nullptr), axes));
    }

    const void *input(const OrtKernelContext *context, size_t index, const char *name, int type,
                      Size *a, Size *b = nullptr, Size *c = nullptr) {
        Size *const axes[] = {a, b, c};
        const OrtValue *value = nullptr;
        if (status || !passes(api->KernelContext_GetInput(context, index, &value))) return nullptr;
        return data(value, name, type, 1 + (b != nullptr) + (c != nullptr), axes);
    }

    float *output(OrtKernelContext *context, const int64_t *shape, size_t n_axes,
                  size_t index = 0) {
        OrtValue *value = nullptr;
        void *at = nullptr;
        if (status ||
            !passes(api->KernelContext_GetOutput(context, index, shape, n_axes, &value)) ||
            !passes(api->GetTensorMutableData(value, &at)))
            return nullptr;
        return static_cast<float *>(at);
    }

    void attribute(const OrtKernelInfo *info, const char *name, Size *out) {
        int64_t value = 0;
        if (status || !passes(api->KernelInfoGetAttribute_int64(info, name, &value))) return;
        need(value > 0 && value <= 4096, name, "an integer from 1 to 4096");
        out->value = static_cast<size_t>(value);
    }

    void finished(Result result) {
        if (status || result == DONE) return;
        const char *why = result == BAD_UNIT ? "spike_unit: expected rows of unit_kv, got another"
                                             : "expected memory, got none";
        status = api->CreateStatus(PE_ORT_FAIL, why);
    }

  private:
    const pe_ort_api *api;
    const char *operator_;
};

// ONNX Runtime's own threads.
struct Threads {
    const pe_ort_api *api;
    OrtKernelContext *context;

    static void run(void *self, void (*task)(void *, size_t), size_t n, void *data) {
        auto *threads = static_cast<Threads *>(self);
        OrtStatus *status =
            threads->api->KernelContext_ParallelFor(threads->context, task, n, 0, data);
        if (!status) return;
        threads->api->ReleaseStatus(status);
        for (size_t i = 0; i < n; i++)
            task(data, i);
    }
    Parallel parallel() { return {run, this}; }
};

} // namespace poyo

#endif
