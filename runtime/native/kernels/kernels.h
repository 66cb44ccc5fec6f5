// What the operators compute, apart from ONNX Runtime and from instruction sets.
//
// Activations are channels first: (windows, dim, latents), so that latents lie along vectors and
// nothing is transposed. Weights are packed once, into the order that a tile reads them in.
//
// Legend: D model dim, L latents, H heads, K head dim, C = H*K, P rotating pairs, U units.
#ifndef PE_KERNELS_H
#define PE_KERNELS_H

#include <cstddef>
#include <cstdint>

#define PE_KERNELS_VERSION "1"

namespace poyo {

using std::size_t;

// Runs task(data, i) for i < n, possibly on several threads at once.
struct Parallel {
    void (*run)(void *context, void (*task)(void *, size_t), size_t n, void *data);
    void *context;
};

struct Norm {
    const float *weight, *bias; // (D,)
};

// Rotation by the latents' times: (P, padded L), padded with zeros.
struct Turn {
    const float *cos, *sin;
    size_t pairs;
};

struct LatentAttention {
    size_t dim, latents, heads, head;
    Norm norm;
    Turn turn;
    const float *qkv; // packed, for each head: K queries, keys and values
    const float *out; // packed (D, C)
    const float *bias;
};

struct FeedForward {
    size_t dim, hidden;
    Norm norm;
    const float *in;      // packed (2*hidden, D): a value, then its gate
    const float *in_bias; // in the same order
    const float *out;     // packed (D, hidden)
    const float *bias;
};

struct SpikeAttention {
    size_t dim, latents, heads, head, pairs;
    size_t period;      // of latents after which the queries' still part repeats
    const float *omega; // (P,) padded to a whole vector
    Turn turn;
    const float *moving; // queries by head and panel: (2P, lanes)
    const float *still;  // queries by head and panel of one period: (K-2P, lanes)
    const float *latent; // (D, L)
    const float *out;    // packed (D, C)
    const float *bias;
};

// Gradients with respect to what goes in. What lies between is computed again.
struct LatentAttentionGradient {
    LatentAttention forward;
    Turn back;        // by minus the latents' times
    const float *in;  // packed (D, 3*C), in the order of `qkv`
    const float *out; // packed, for each head: (K, D)
};

struct FeedForwardGradient {
    FeedForward forward;
    const float *in;  // packed (D, 2*hidden)
    const float *out; // packed (hidden, D)
};

struct SpikeAttentionGradient {
    SpikeAttention forward;
    const float *out;   // packed, for each head: (K, D)
    const float *query; // by head and panel of K: (L, lanes)
};

// Of one session and some windows.
struct Spikes {
    const int32_t *unit;   // (windows, n)
    const float *time;     // (windows, n) s
    const bool *mask;      // (windows, n)
    const float *unit_kv;  // (U, 2*C)
    const float *lse;      // (H, L)
    const float *boundary; // (H, L, K)
    size_t windows, n, units;
};

struct QueryAttention {
    size_t dim, latents, heads, head;
    Norm query_norm, norm;
    Turn turn;
    const float *omega; // (P,)
    const float *query; // (D, C)
    const float *kv;    // packed (2*C, D): keys, then values
};

// Sums over the windows, in the shapes of what they are gradients of.
struct SpikeGradients {
    float *unit_kv, *lse, *boundary;
};

enum Result { DONE, NO_MEMORY, BAD_UNIT };

// One instruction set.
struct Kernels {
    const char *name;
    size_t lanes; // latents in a panel
    void (*pack)(const float *a, size_t rows, size_t n_k, float *out);
    Result (*latent_attention)(const LatentAttention &, const float *x, float *y, size_t windows,
                               const Parallel &);
    Result (*feed_forward)(const FeedForward &, const float *x, float *y, size_t windows,
                           size_t latents, const Parallel &);
    Result (*spike_attention)(const SpikeAttention &, const Spikes &, float *y, const Parallel &);
    Result (*query_attention)(const QueryAttention &, const float *x, const float *session,
                              const float *time, size_t windows, size_t queries, float *y,
                              const Parallel &);
    Result (*latent_attention_gradient)(const LatentAttentionGradient &, const float *x,
                                        const float *grad, float *y, size_t windows,
                                        const Parallel &);
    Result (*feed_forward_gradient)(const FeedForwardGradient &, const float *x, const float *grad,
                                    float *y, size_t windows, size_t latents, const Parallel &);
    Result (*spike_attention_gradient)(const SpikeAttentionGradient &, const Spikes &,
                                       const float *grad, const SpikeGradients &, const Parallel &);
};

#if defined(__x86_64__)
extern const Kernels sse2, avx2, avx512;
#else
extern const Kernels neon;
#endif

// The best that this processor has, or the one that was asked for; NULL where it has none such.
const Kernels *choose(const char *name);
// All that this processor has, best first, and a NULL.
const Kernels *const *available();

// Memory that one thread uses for a while, aligned; kept for the next one who asks.
class Scratch {
  public:
    explicit Scratch(size_t floats);
    ~Scratch();
    Scratch(const Scratch &) = delete;
    Scratch &operator=(const Scratch &) = delete;
    float *take(size_t floats) { // whole cache lines
        float *at = next;
        next += (floats + 15) & ~size_t(15);
        return at;
    }
    explicit operator bool() const { return block != nullptr; }

  private:
    struct Block;
    static Block *spare;
    Block *block;
    float *next;
};

// What `take` needs for these.
inline size_t whole(size_t floats) { return (floats + 15) & ~size_t(15); }

} // namespace poyo

#endif
