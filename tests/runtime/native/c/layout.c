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
#include "../../../../runtime/native/src/ort/api.h"

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
_Static_assert(offsetof(pe_ort_base, GetApi) == offsetof(OrtApiBase, GetApi), "GetApi");
_Static_assert(offsetof(pe_ort_base, GetVersionString) == offsetof(OrtApiBase, GetVersionString),
               "GetVersionString");
_Static_assert((int)PE_ORT_LOG_ERROR == (int)ORT_LOGGING_LEVEL_ERROR, "level");
_Static_assert((int)PE_ORT_FLOAT == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, "float");
_Static_assert((int)PE_ORT_INT32 == (int)ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, "int32");
_Static_assert((int)PE_ORT_DEVICE_ALLOCATOR == (int)OrtDeviceAllocator, "allocator");
_Static_assert((int)PE_ORT_MEMORY_DEFAULT == (int)OrtMemTypeDefault, "memory");
_Static_assert(ORT_API_VERSION >= PE_ORT_API, "version");
