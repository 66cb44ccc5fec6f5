/* Compiles only if the declarations of ours have ONNX Runtime's places. */
#include <stddef.h>

#include "onnxruntime_c_api.h"
#define OrtStatus pe_OrtStatus
#define OrtEnv pe_OrtEnv
#define OrtSession pe_OrtSession
#define OrtSessionOptions pe_OrtSessionOptions
#define OrtRunOptions pe_OrtRunOptions
#define OrtMemoryInfo pe_OrtMemoryInfo
#define OrtValue pe_OrtValue
#define OrtTensorTypeAndShapeInfo pe_OrtTensorTypeAndShapeInfo
#define OrtKernelInfo pe_OrtKernelInfo
#define OrtKernelContext pe_OrtKernelContext
#define OrtCustomOp pe_OrtCustomOp
#define OrtCustomOpDomain pe_OrtCustomOpDomain
#include "../../../../runtime/native/src/ort/api.h"
#include "../../../../runtime/native/kernels/custom_op.h"
#undef OrtCustomOp

#define SAME(function)                                                                             \
    _Static_assert(offsetof(pe_ort_api, function) == offsetof(OrtApi, function), #function)
SAME(GetErrorMessage);
SAME(CreateEnv);
SAME(CreateSessionFromArray);
SAME(Run);
SAME(CreateSessionOptions);
SAME(DisableMemPattern);
SAME(SetSessionLogSeverityLevel);
SAME(SetIntraOpNumThreads);
SAME(SetInterOpNumThreads);
SAME(CreateTensorWithDataAsOrtValue);
SAME(CreateCpuMemoryInfo);
SAME(ReleaseEnv);
SAME(ReleaseStatus);
SAME(ReleaseMemoryInfo);
SAME(ReleaseSession);
SAME(ReleaseValue);
SAME(ReleaseSessionOptions);
SAME(CreateStatus);
SAME(CreateCustomOpDomain);
SAME(CustomOpDomain_Add);
SAME(AddCustomOpDomain);
SAME(GetTensorMutableData);
SAME(GetTensorElementType);
SAME(GetDimensionsCount);
SAME(GetDimensions);
SAME(GetTensorTypeAndShape);
SAME(KernelInfoGetAttribute_int64);
SAME(KernelContext_GetInput);
SAME(KernelContext_GetOutput);
SAME(ReleaseTensorTypeAndShapeInfo);
SAME(ReleaseCustomOpDomain);
SAME(KernelInfoGetConstantInput_tensor);
SAME(KernelContext_ParallelFor);
#define SAME_OF_OPERATOR(function)                                                                 \
    _Static_assert(offsetof(struct pe_OrtCustomOp, function) == offsetof(OrtCustomOp, function),   \
                   #function)
SAME_OF_OPERATOR(version);
SAME_OF_OPERATOR(GetName);
SAME_OF_OPERATOR(GetExecutionProviderType);
SAME_OF_OPERATOR(GetInputType);
SAME_OF_OPERATOR(GetInputTypeCount);
SAME_OF_OPERATOR(GetOutputType);
SAME_OF_OPERATOR(GetOutputTypeCount);
SAME_OF_OPERATOR(KernelDestroy);
SAME_OF_OPERATOR(GetInputCharacteristic);
SAME_OF_OPERATOR(GetOutputCharacteristic);
SAME_OF_OPERATOR(GetInputMemoryType);
SAME_OF_OPERATOR(CreateKernelV2);
SAME_OF_OPERATOR(KernelComputeV2);
SAME_OF_OPERATOR(InferOutputShapeFn);
SAME_OF_OPERATOR(GetStartVersion);
SAME_OF_OPERATOR(GetEndVersion);
SAME_OF_OPERATOR(GetMayInplace);
SAME_OF_OPERATOR(GetAliasMap);
_Static_assert(sizeof(struct pe_OrtCustomOp) == offsetof(OrtCustomOp, ReleaseAliasMap) + sizeof(void *),
               "operators");
_Static_assert(offsetof(pe_ort_base, GetApi) == offsetof(OrtApiBase, GetApi), "GetApi");
_Static_assert(offsetof(pe_ort_base, GetVersionString) == offsetof(OrtApiBase, GetVersionString),
               "GetVersionString");
_Static_assert((int)PE_ORT_LOG_ERROR == (int)ORT_LOGGING_LEVEL_ERROR, "level");
_Static_assert((int)PE_ORT_FLOAT == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float");
_Static_assert((int)PE_ORT_INT32 == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32");
_Static_assert((int)PE_ORT_BOOL == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, "bool");
_Static_assert((int)PE_ORT_FAIL == (int)ORT_FAIL, "fail");
_Static_assert((int)PE_ORT_INVALID_ARGUMENT == (int)ORT_INVALID_ARGUMENT, "argument");
_Static_assert((int)PE_ORT_DEVICE_ALLOCATOR == (int)OrtDeviceAllocator, "allocator");
_Static_assert((int)PE_ORT_MEMORY_DEFAULT == (int)OrtMemTypeDefault, "memory");
_Static_assert(ORT_API_VERSION >= PE_ORT_API, "version");
