// Which instruction set is used.
#include "kernels.h"

#include <cstring>

namespace poyo {

const Kernels *const *available() {
#if defined(__x86_64__)
    static const Kernels *const all[] = {&avx512, &avx2, &sse2, nullptr};
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return all;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return all + 1;
    return all + 2;
#else
    static const Kernels *const all[] = {&neon, nullptr};
    return all;
#endif
}

const Kernels *choose(const char *name) {
    for (const Kernels *const *one = available(); *one; one++)
        if (!name || !*name || std::strcmp((*one)->name, name) == 0) return *one;
    return nullptr;
}

} // namespace poyo
