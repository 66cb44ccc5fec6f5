/* An operator as ONNX Runtime asks for it, in the layout that onnxruntime_c_api.h 1.19 has. */
#ifndef PE_CUSTOM_OP_H
#define PE_CUSTOM_OP_H

#include "../src/ort/api.h"

struct OrtCustomOp {
    uint32_t version;
    void *unused_CreateKernel;
    const char *(*GetName)(const struct OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const struct OrtCustomOp *op);
    int (*GetInputType)(const struct OrtCustomOp *op, size_t index);
    size_t (*GetInputTypeCount)(const struct OrtCustomOp *op);
    int (*GetOutputType)(const struct OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const struct OrtCustomOp *op);
    void *unused_KernelCompute;
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const struct OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(const struct OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(const struct OrtCustomOp *op, size_t index);
    void *unused_variadic[4];
    OrtStatus *(*CreateKernelV2)(const struct OrtCustomOp *op, const pe_ort_api *api,
                                 const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    void *InferOutputShapeFn;
    int (*GetStartVersion)(const struct OrtCustomOp *op);
    int (*GetEndVersion)(const struct OrtCustomOp *op);
    void *GetMayInplace;
    void *unused_ReleaseMayInplace;
    void *GetAliasMap;
    void *unused_ReleaseAliasMap;
};

#endif
