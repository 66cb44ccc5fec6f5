/* The part of ONNX Runtime's C API that is used, in the layout of onnxruntime_c_api.h.
 *
 * The API is a table of functions that new releases only append to, so one build serves every
 * release from PE_ORT_API on. tests/runtime/native compares these places with the real header.
 */
#ifndef PE_ORT_API_H
#define PE_ORT_API_H

#include <stddef.h>
#include <stdint.h>

#define PE_ORT_API 19 /* the oldest release promised is 1.19 */

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtRunOptions OrtRunOptions;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtCustomOp OrtCustomOp; /* kernels/custom_op.h */
typedef struct OrtCustomOpDomain OrtCustomOpDomain;

enum { PE_ORT_LOG_ERROR = 3 };
enum { PE_ORT_FLOAT = 1, PE_ORT_INT32 = 6, PE_ORT_BOOL = 9 };
enum { PE_ORT_FAIL = 1, PE_ORT_INVALID_ARGUMENT = 2 };
enum { PE_ORT_DEVICE_ALLOCATOR = 0, PE_ORT_MEMORY_DEFAULT = 0 };

typedef struct {
    OrtStatus *(*CreateStatus)(int code, const char *message);
    void *unused_1[1];
    const char *(*GetErrorMessage)(const OrtStatus *status);
    OrtStatus *(*CreateEnv)(int level, const char *name, OrtEnv **out);
    void *unused_4[4];
    OrtStatus *(*CreateSessionFromArray)(const OrtEnv *env, const void *model, size_t size,
                                         const OrtSessionOptions *options, OrtSession **out);
    OrtStatus *(*Run)(OrtSession *session, const OrtRunOptions *options,
                      const char *const *input_names, const OrtValue *const *inputs,
                      size_t n_inputs, const char *const *output_names, size_t n_outputs,
                      OrtValue **outputs);
    OrtStatus *(*CreateSessionOptions)(OrtSessionOptions **out);
    void *unused_11[6];
    OrtStatus *(*DisableMemPattern)(OrtSessionOptions *options);
    void *unused_18[4];
    OrtStatus *(*SetSessionLogSeverityLevel)(OrtSessionOptions *options, int level);
    void *unused_23[1];
    OrtStatus *(*SetIntraOpNumThreads)(OrtSessionOptions *options, int n);
    OrtStatus *(*SetInterOpNumThreads)(OrtSessionOptions *options, int n);
    OrtStatus *(*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **out);
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    void *unused_29[20];
    OrtStatus *(*CreateTensorWithDataAsOrtValue)(const OrtMemoryInfo *info, void *data,
                                                 size_t n_bytes, const int64_t *shape,
                                                 size_t n_axes, int type, OrtValue **out);
    void *unused_50[1];
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **out);
    void *unused_52[8];
    OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, int *out);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *out);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t n);
    void *unused_63[2];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **out);
    void *unused_66[3];
    OrtStatus *(*CreateCpuMemoryInfo)(int allocator, int memory, OrtMemoryInfo **out);
    void *unused_70[16];
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name,
                                               int64_t *out);
    void *unused_87[3];
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                         const OrtValue **out);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index,
                                          const int64_t *shape, size_t n_axes, OrtValue **out);
    void (*ReleaseEnv)(OrtEnv *env);
    void (*ReleaseStatus)(OrtStatus *status);
    void (*ReleaseMemoryInfo)(OrtMemoryInfo *info);
    void (*ReleaseSession)(OrtSession *session);
    void (*ReleaseValue)(OrtValue *value);
    void *unused_97[2];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info);
    void (*ReleaseSessionOptions)(OrtSessionOptions *options);
    void (*ReleaseCustomOpDomain)(OrtCustomOpDomain *domain);
    void *unused_102[147];
    OrtStatus *(*KernelInfoGetConstantInput_tensor)(const OrtKernelInfo *info, size_t index,
                                                    int *is_constant, const OrtValue **out);
    void *unused_250[24];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context,
                                            void (*task)(void *data, size_t i), size_t n,
                                            size_t n_batches, void *data);
} pe_ort_api;

typedef struct {
    const pe_ort_api *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
} pe_ort_base;

#endif
