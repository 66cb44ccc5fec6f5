// Gradients of a layer's two halves with respect to what goes in. Only that and the gradient of
// what came out are kept between forward and back: all else is computed again, which takes less
// time than to read it.

// `grad` (D, LANES) of what LayerNorm gave becomes that of what went in; y is it and `residual`.
static void normalise_back(const Norm &norm, size_t dim, const float *x, const float *residual,
                           size_t latents, size_t panel, const float *grad, float *y) {
    const ptrdiff_t n = valid(latents, panel);
    for (int j = 0; j * W < n; j++) {
        const size_t at = panel * LANES + j * W;
        const ptrdiff_t left = n - j * W;
        const float size = static_cast<float>(dim);
        vf mean = {}, square = {}, sum = {}, along = {};
        for (size_t d = 0; d < dim; d++)
            mean += load_some(x + d * latents + at, left);
        mean /= size;
        for (size_t d = 0; d < dim; d++) {
            vf v = load_some(x + d * latents + at, left) - mean;
            vf g = load(grad + d * LANES + j * W) * norm.weight[d];
            square += v * v;
            along += g * v;
            sum += g;
        }
        for (int i = 0; i < W; i++)
            square[i] = 1.0f / __builtin_sqrtf(square[i] / size + 1e-5f);
        sum /= size;
        along *= square * square / size;
        for (size_t d = 0; d < dim; d++) {
            vf v = load_some(x + d * latents + at, left) - mean;
            vf g = load(grad + d * LANES + j * W) * norm.weight[d];
            vf old = load_some(residual + d * latents + at, left);
            store_some(y + d * latents + at, (g - sum - v * along) * square + old, left);
        }
    }
}

// What a head's task works with; latents are rounded up to whole panels.
struct HeadGradient {
    float *qkv;            // (panels; 3K, LANES), turned
    float *grad;           // (panels; K, LANES): of what the head took, turned
    float *weights, *pull; // (L, LANES): of one panel of queries
    float *weights_by_key, *pull_by_key; // (panels of keys; L queries, LANES)
};

// Rows (keys, queries) of one panel of queries, to be (queries, keys) in panels of keys.
static void by_key(const float *from, size_t latents, size_t query, float *to) {
    const size_t padded = panels_of(latents) * LANES;
    const ptrdiff_t n = valid(latents, query);
    for (size_t p = 0; p < panels_of(latents); p++) {
        const ptrdiff_t here = valid(latents, p);
        const float *block = from + p * LANES * LANES;
        float *out = to + (p * padded + query * LANES) * LANES;
        for (ptrdiff_t i = 0; i < n; i++)
            for (ptrdiff_t k = 0; k < here; k++)
                out[i * LANES + k] = block[k * LANES + i];
    }
}

// Weights of one panel of queries, and gradients of its scores: weight * (pull - their mean).
static void pull_scores(const LatentAttention &op, size_t query, const HeadGradient &own) {
    const size_t head = op.head, jump = 3 * head * LANES;
    const float *q = own.qkv + query * jump, *k = own.qkv + head * LANES, *v = k + head * LANES;
    const float *grad = own.grad + query * head * LANES;
    Taken taken;
    vf most[NV], shrink[NV], level[NV] = {};
    for (int j = 0; j < NV; j++) {
        most[j] = taken.most[j] = all(-__builtin_inff());
        taken.sum[j] = vf{};
    }
    for (size_t p = 0; p < panels_of(op.latents); p++) {
        const size_t here = static_cast<size_t>(valid(op.latents, p));
        for (size_t row = 0, m; row < here; row += m) {
            m = step(here - row);
            with(m, [&](auto M) INLINE_LAMBDA {
                auto c = multiply<M.value, COLUMN>(k + p * jump + row, q, head);
                keep(c, own.weights + (p * LANES + row) * LANES, here - row, most);
            });
        }
    }
    weigh(own.weights, op.latents, most, taken, shrink);
    for (size_t p = 0; p < panels_of(op.latents); p++) {
        const size_t here = static_cast<size_t>(valid(op.latents, p));
        for (size_t row = 0, m; row < here; row += m) {
            m = step(here - row);
            with(m, [&](auto M) INLINE_LAMBDA {
                auto c = multiply<M.value, COLUMN>(v + p * jump + row, grad, head);
                UNROLL
                for (int i = 0; i < M.value; i++) {
                    if (row + i >= here) break;
                    UNROLL
                    for (int j = 0; j < NV; j++) {
                        const size_t at = (p * LANES + row + i) * LANES + j * W;
                        level[j] += load(own.weights + at) * c.at[i][j];
                        store(own.pull + at, c.at[i][j]);
                    }
                }
            });
        }
    }
    for (int j = 0; j < NV; j++) {
        shrink[j] = 1.0f / taken.sum[j];
        level[j] *= shrink[j];
    }
    for (size_t i = 0; i < op.latents; i++)
        for (int j = 0; j < NV; j++) {
            const size_t at = i * LANES + j * W;
            vf weight = load(own.weights + at) * shrink[j];
            store(own.weights + at, weight);
            store(own.pull + at, weight * (load(own.pull + at) - level[j]));
        }
}

// (K, LANES) of a head's queries, keys or values: rows of A by a panel of weights or pulls.
static void gradient_rows(const LatentAttentionGradient &op, const float *a, size_t jump,
                          const float *b, size_t panel, float scale, float *out) {
    const size_t head = op.forward.head, padded = panels_of(op.forward.latents) * LANES;
    for (size_t row = 0, m; row < head; row += m) {
        m = step(head - row);
        with(m, [&](auto M) INLINE_LAMBDA {
            auto c = multiply<M.value, ROW>(a + row * LANES, b, op.forward.latents, jump);
            UNROLL
            for (int i = 0; i < M.value; i++)
                UNROLL
                for (int j = 0; j < NV; j++)
                    c.at[i][j] *= scale;
            turn_and_keep(c, row, head, head, op.back, padded, panel, out);
        });
    }
}

// One head; out (panels; 3C, LANES): gradients of queries, keys and values as they were made.
static void head_gradient(const LatentAttentionGradient &op, const float *normed,
                          const float *grads, size_t h, const HeadGradient &own, float *out) {
    const LatentAttention &f = op.forward;
    const size_t head = f.head, panels = panels_of(f.latents), padded = panels * LANES;
    const size_t jump = 3 * head * LANES, apart = 3 * f.heads * head * LANES;
    constexpr float ln2 = 0.69314718f;
    product(f.qkv + h * 3 * head * f.dim, 3 * head, f.dim, normed, panels, f.dim * LANES,
            [&](size_t p, size_t row, const auto &c) INLINE_LAMBDA {
                turn_and_keep(c, row, head, 3 * head, f.turn, padded, p, own.qkv + p * jump);
            });
    product(op.out + h * head * f.dim, head, f.dim, grads, panels, f.dim * LANES,
            [&](size_t p, size_t row, const auto &c) INLINE_LAMBDA {
                turn_and_keep(c, row, head, head, f.turn, padded, p, own.grad + p * head * LANES);
            });
    out += 3 * h * head * LANES;
    for (size_t p = 0; p < panels; p++) {
        pull_scores(f, p, own);
        by_key(own.weights, f.latents, p, own.weights_by_key);
        by_key(own.pull, f.latents, p, own.pull_by_key);
        gradient_rows(op, own.qkv + head * LANES, jump, own.pull, p, 1.0f, out + p * apart);
    }
    for (size_t p = 0; p < panels; p++) { // queries hold log2 e
        float *to = out + p * apart + head * LANES;
        gradient_rows(op, own.qkv, jump, own.pull_by_key + p * padded * LANES, p, ln2, to);
        gradient_rows(op, own.grad, head * LANES, own.weights_by_key + p * padded * LANES, p, 1.0f,
                      to + head * LANES);
    }
}

static Result latent_attention_gradient(const LatentAttentionGradient &op, const float *x,
                                        const float *grad, float *y, size_t windows,
                                        const Parallel &parallel) {
    const LatentAttention &f = op.forward;
    const size_t panels = panels_of(f.latents), width = f.heads * f.head, lanes = panels * LANES;
    Scratch shared(lanes * (2 * f.dim + 3 * width) + 64);
    if (!shared) return NO_MEMORY;
    float *normed = shared.take(lanes * f.dim), *grads = shared.take(lanes * f.dim);
    float *qkv = shared.take(lanes * 3 * width);
    bool failed = false;
    for (size_t w = 0; w < windows; w++) {
        const size_t at = w * f.dim * f.latents;
        for (size_t p = 0; p < panels; p++) {
            normalise(f.norm, f.dim, x + at, f.latents, p, normed + p * f.dim * LANES);
            read_panel(grad + at, f.dim, f.latents, p, grads + p * f.dim * LANES);
        }
        each(parallel, f.heads, [&](size_t h) {
            Scratch own(4 * f.head * lanes + 2 * lanes * LANES + 2 * lanes * lanes + 128);
            if (!own) {
                __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
                return;
            }
            HeadGradient mine = {};
            mine.qkv = own.take(3 * f.head * lanes);
            mine.grad = own.take(f.head * lanes);
            mine.weights = own.take(lanes * LANES);
            mine.pull = own.take(lanes * LANES);
            mine.weights_by_key = own.take(lanes * lanes);
            mine.pull_by_key = own.take(lanes * lanes);
            if (lanes != f.latents)
                __builtin_memset(mine.weights_by_key, 0, 2 * lanes * lanes * sizeof(float));
            head_gradient(op, normed, grads, h, mine, qkv);
        });
        if (failed) return NO_MEMORY;
        each(parallel, panels, [&](size_t p) {
            float *panel = normed + p * f.dim * LANES;
            product(op.in, f.dim, 3 * width, qkv + p * 3 * width * LANES, 1, 0,
                    [&](size_t, size_t row, const auto &c)
                        INLINE_LAMBDA { put(c, panel + row * LANES); });
            normalise_back(f.norm, f.dim, x + at, grad + at, f.latents, p, panel, y + at);
        });
    }
    return DONE;
}

// Values and their gates, still with what made them, become gradients of both.
template <int M> INLINE void gate_back(const Tile<M> &c, size_t row, float *hidden) {
    UNROLL
    for (int i = 0; i < M; i++)
        UNROLL
        for (int j = 0; j < NV; j++) {
            float *value = hidden + 2 * (row + i) * LANES + j * W, *by = value + LANES;
            vf gate = load(by), below = probability(gate), both = c.at[i][j] * load(value);
            store(value, c.at[i][j] * gate * below);
            store(by, both * gelu_slope(gate, below));
        }
}

static Result feed_forward_gradient(const FeedForwardGradient &op, const float *x,
                                    const float *grad, float *y, size_t windows, size_t latents,
                                    const Parallel &parallel) {
    const FeedForward &f = op.forward;
    const size_t panels = panels_of(latents), groups = (panels + GROUP - 1) / GROUP;
    const size_t rows = (f.hidden + 1) / 2 * 4; // an even number of values, and gates
    bool failed = false;
    each(parallel, windows * groups, [&](size_t task) {
        const size_t first = task % groups * GROUP, at = task / groups * f.dim * latents;
        const size_t n = panels - first < GROUP ? panels - first : GROUP;
        Scratch own(n * (2 * f.dim + rows) * LANES + 64);
        if (!own) {
            __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
            return;
        }
        float *normed = own.take(n * f.dim * LANES), *grads = own.take(n * f.dim * LANES);
        float *hidden = own.take(n * rows * LANES);
        for (size_t p = 0; p < n; p++) {
            normalise(f.norm, f.dim, x + at, latents, first + p, normed + p * f.dim * LANES);
            read_panel(grad + at, f.dim, latents, first + p, grads + p * f.dim * LANES);
        }
        product(f.in, 2 * f.hidden, f.dim, normed, n, f.dim * LANES,
                [&](size_t p, size_t row, auto &&c) INLINE_LAMBDA {
                    UNROLL
                    for (size_t i = 0; i < sizeof c / sizeof c.at[0]; i++)
                        UNROLL
                        for (int j = 0; j < NV; j++)
                            c.at[i][j] += f.in_bias[row + i];
                    put(c, hidden + (p * rows + row) * LANES);
                });
        if (f.hidden % 2)
            for (size_t p = 0; p < n; p++)
                __builtin_memset(hidden + (p * rows + rows - 2) * LANES, 0,
                                 2 * LANES * sizeof(float));
        product(op.out, rows / 2, f.dim, grads, n, f.dim * LANES,
                [&](size_t p, size_t row, const auto &c)
                    INLINE_LAMBDA { gate_back(c, row, hidden + p * rows * LANES); });
        product(op.in, f.dim, 2 * f.hidden, hidden, n, rows * LANES,
                [&](size_t p, size_t row, const auto &c)
                    INLINE_LAMBDA { put(c, normed + (p * f.dim + row) * LANES); });
        for (size_t p = 0; p < n; p++)
            normalise_back(f.norm, f.dim, x + at, grad + at, latents, first + p,
                           normed + p * f.dim * LANES, y + at);
    });
    return failed ? NO_MEMORY : DONE;
}
