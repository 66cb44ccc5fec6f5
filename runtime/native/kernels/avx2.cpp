#if defined(__x86_64__)
#include "kernels.h"

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define PE_W 8
#define PE_NV 2
#define PE_MR 6
#include "all.h"
PE_TABLE(avx2)
#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
