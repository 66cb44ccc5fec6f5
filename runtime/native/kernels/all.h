// Everything that is compiled once for each instruction set. What includes it says how wide
// vectors are (W), how many of them a panel has (NV) and how many rows a tile has (PE_MR).

#define INLINE __attribute__((always_inline)) static inline
#define INLINE_LAMBDA __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
#if defined(__aarch64__)
#define IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#endif

namespace poyo {
namespace {

constexpr int W = PE_W, NV = PE_NV, MR = PE_MR;

// clang-format off: the order matters
#include "vector.h"
#include "tile.h"
#include "softmax.h"
#include "layer.h"
#include "spikes.h"
#include "query.h"
#include "layer_gradient.h"
#include "spikes_gradient.h"
// clang-format on

} // namespace
} // namespace poyo

#define PE_TABLE(name)                                                                             \
    const poyo::Kernels poyo::name = {#name,                                                       \
                                      poyo::LANES,                                                 \
                                      poyo::pack,                                                  \
                                      poyo::latent_attention,                                      \
                                      poyo::feed_forward,                                          \
                                      poyo::spike_attention,                                       \
                                      poyo::query_attention,                                       \
                                      poyo::latent_attention_gradient,                             \
                                      poyo::feed_forward_gradient,                                 \
                                      poyo::spike_attention_gradient};
