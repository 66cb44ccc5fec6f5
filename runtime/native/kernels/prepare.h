// From weights in their standard layout, (inputs, outputs), to what the kernels read.
//
// The two members of a rotating pair become neighbours, and so do a value and its gate.
#ifndef PE_PREPARE_H
#define PE_PREPARE_H

#include "reading.h"

namespace poyo {

// Owns what it hands out. All of it is there, or `ok` is false.
class Memory {
  public:
    bool ok = true;
    float *floats(size_t n) {
        constexpr size_t line = 64, most = size_t(1) << 40;
        void *at = nullptr;
        if (ok && count < sizeof owned / sizeof *owned && n < most)
            at = std::aligned_alloc(line, (n * sizeof(float) / line + 1) * line);
        ok = ok && at;
        if (at) {
            owned[count++] = at;
            std::memset(at, 0, n * sizeof(float));
        }
        return static_cast<float *>(at);
    }
    float *copy(const float *from, size_t n) {
        float *to = floats(n);
        if (to) std::memcpy(to, from, n * sizeof(float));
        return to;
    }
    void release() {
        while (count)
            std::free(owned[--count]);
    }

  private:
    void *owned[16];
    size_t count = 0;
};

// Place of a head's number `row` when pairs are neighbours: of the number that stands there.
inline size_t of_pairs(size_t row, size_t pairs) {
    return row < 2 * pairs ? row / 2 + row % 2 * pairs : row;
}

// Packs the (groups * rows, n_k) matrix that `at(row, k)` gives, each group for itself.
template <class F>
const float *packed(const Kernels &kernels, Memory &memory, size_t groups, size_t rows, size_t n_k,
                    F at) {
    auto *plain = static_cast<float *>(std::malloc(rows * n_k * sizeof(float) + 1));
    float *out = memory.floats(groups * rows * n_k);
    memory.ok = memory.ok && plain;
    for (size_t group = 0; memory.ok && group < groups; group++) {
        for (size_t row = 0; row < rows; row++)
            for (size_t k = 0; k < n_k; k++)
                plain[row * n_k + k] = at(group * rows + row, k);
        kernels.pack(plain, rows, n_k, out + group * rows * n_k);
    }
    std::free(plain);
    return out;
}

inline size_t padded(const Kernels &kernels, size_t latents) {
    return (latents + kernels.lanes - 1) / kernels.lanes * kernels.lanes;
}

// (L, P) → (P, padded L).
inline const float *by_pair(const Kernels &kernels, Memory &memory, const float *from,
                            size_t latents, size_t pairs) {
    const size_t width = padded(kernels, latents);
    float *to = memory.floats(pairs * width);
    for (size_t l = 0; to && l < latents; l++)
        for (size_t i = 0; i < pairs; i++)
            to[i * width + l] = from[l * pairs + i];
    return to;
}

// Smallest number of latents after which the still part of all queries (H, L, K) repeats.
inline size_t period_of(const float *query, size_t heads, size_t latents, size_t head,
                        size_t moving, size_t lanes) {
    for (size_t period = 1; period < latents; period++) {
        if (latents % period || (lanes % period && period % lanes)) continue;
        bool same = true;
        for (size_t h = 0; h < heads && same; h++)
            for (size_t l = period; l < latents && same; l++)
                same = std::memcmp(query + (h * latents + l) * head + moving,
                                   query + (h * latents + l - period) * head + moving,
                                   (head - moving) * sizeof(float)) == 0;
        if (same) return period;
    }
    return latents;
}

// Numbers `first` to `last` of queries (H, L, K), by head and panel of (numbers, lanes), for
// scores in powers of two. Panels are those of `period` latents, which repeat within one.
inline const float *query_panels(const Kernels &kernels, Memory &memory, const float *query,
                                 size_t heads, size_t latents, size_t head, size_t first,
                                 size_t last, size_t period) {
    constexpr float log2e = 1.44269504f;
    const size_t lanes = kernels.lanes, panels = padded(kernels, period) / lanes, n = last - first;
    float *to = memory.floats(heads * panels * n * lanes);
    for (size_t h = 0; to && h < heads; h++)
        for (size_t p = 0; p < panels; p++)
            for (size_t lane = 0; lane < lanes; lane++) {
                const bool repeats = period < lanes && period < latents;
                const size_t l = repeats ? lane % period : p * lanes + lane;
                for (size_t k = 0; l < period && k < n; k++)
                    to[((h * panels + p) * n + k) * lanes + lane] =
                        query[(h * latents + l) * head + first + k] * log2e;
            }
    return to;
}

} // namespace poyo

#endif
