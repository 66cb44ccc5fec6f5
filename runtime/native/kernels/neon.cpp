#if defined(__aarch64__)
#include "kernels.h"
#define PE_W 4
#define PE_NV 4
#define PE_MR 6
#include "all.h"
PE_TABLE(neon)
#endif
