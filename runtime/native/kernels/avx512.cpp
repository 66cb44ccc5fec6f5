#if defined(__x86_64__)
#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(                                                                      \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#endif
#define PE_W 16
#define PE_NV 2
#define PE_MR 12
#include "all.h"
PE_TABLE(avx512)
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
