// Online softmax of scores that lie (keys, latents), and what a panel of latents takes from values.

constexpr size_t BLOCK = 64;    // spikes that are looked at together
constexpr size_t KEYS = 128;    // latents, likewise

// What a panel of one head has taken so far.
struct Taken {
    vf most[NV], sum[NV];
};

// Scores of one tile, `left` of its rows are there; the largest so far.
template <int M>
INLINE void keep(const Tile<M> &c, float *scores, size_t left, vf *most) {
    UNROLL
    for (int i = 0; i < M; i++) {
        if (static_cast<size_t>(i) >= left) break;
        UNROLL
        for (int j = 0; j < NV; j++) {
            store(scores + i * LANES + j * W, c.at[i][j]);
            most[j] = larger(c.at[i][j], most[j]);
        }
    }
}

// Scores (n, LANES), in powers of two, become weights; what was taken shrinks by `shrink`.
INLINE void weigh(float *scores, size_t n, const vf *most, Taken &taken, vf *shrink) {
    vf sum[NV];
    for (int j = 0; j < NV; j++) {
        shrink[j] = exp2(taken.most[j] - most[j]);
        taken.most[j] = most[j];
        sum[j] = vf{};
    }
    for (size_t i = 0; i < n; i++)
        UNROLL
        for (int j = 0; j < NV; j++) {
            float *at = scores + i * LANES + j * W;
            vf weight = exp2(load(at) - most[j]);
            store(at, weight);
            sum[j] += weight;
        }
    for (int j = 0; j < NV; j++)
        taken.sum[j] = taken.sum[j] * shrink[j] + sum[j];
}

// Rows of what was taken, (K, LANES): less of the old, and the new.
template <int M> INLINE void take(const Tile<M> &c, float *out, const vf *shrink) {
    UNROLL
    for (int i = 0; i < M; i++)
        UNROLL
        for (int j = 0; j < NV; j++) {
            float *at = out + i * LANES + j * W;
            store(at, load(at) * shrink[j] + c.at[i][j]);
        }
}

// Divides by the sum of weights and turns back by the latents' times. Pair i are the rows
// `first * i` and `first * i + second`.
INLINE void finish(const float *in, const Taken &taken, const Turn &turn, size_t padded,
                   size_t panel, size_t head, size_t first, size_t second, float *out) {
    vf whole[NV];
    for (int j = 0; j < NV; j++)
        whole[j] = 1.0f / taken.sum[j];
    for (size_t i = 0; i < turn.pairs; i++)
        for (int j = 0; j < NV; j++) {
            size_t lane = panel * LANES + j * W, a = first * i * LANES + j * W,
                   b = a + second * LANES;
            vf cos = load(turn.cos + i * padded + lane) * whole[j];
            vf sin = load(turn.sin + i * padded + lane) * whole[j];
            vf x = load(in + a), y = load(in + b);
            store(out + a, x * cos + y * sin);
            store(out + b, y * cos - x * sin);
        }
    for (size_t k = 2 * turn.pairs; k < head; k++)
        for (int j = 0; j < NV; j++)
            store(out + k * LANES + j * W, load(in + k * LANES + j * W) * whole[j]);
}
