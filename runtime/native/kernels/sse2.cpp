#if defined(__x86_64__)
#include "kernels.h"
#define PE_W 4
#define PE_NV 2
#define PE_MR 6
#include "all.h"
PE_TABLE(sse2)
#endif
