// A layer's two halves: attention of latents to each other, and the gated feed-forward.

// Turns the pairs of a tile by the latents' times and keeps its rows; rows of `head` begin anew,
// `last` of them and later ones are only kept.
template <int M>
INLINE void turn_and_keep(const Tile<M> &c, size_t row, size_t head, size_t last, const Turn &turn,
                          size_t padded, size_t panel, float *out) {
    UNROLL
    for (int i = 0; i < M; i += 2) {
        size_t pair = (row + i) % head / 2;
        float *a = out + (row + i) * LANES, *b = a + LANES;
        if (row + i < last && pair < turn.pairs) {
            UNROLL
            for (int j = 0; j < NV; j++) {
                vf cos = load(turn.cos + pair * padded + panel * LANES + j * W);
                vf sin = load(turn.sin + pair * padded + panel * LANES + j * W);
                store(a + j * W, c.at[i][j] * cos - c.at[i + 1][j] * sin);
                store(b + j * W, c.at[i + 1][j] * cos + c.at[i][j] * sin);
            }
        } else {
            UNROLL
            for (int j = 0; j < NV; j++) {
                store(a + j * W, c.at[i][j]);
                store(b + j * W, c.at[i + 1][j]);
            }
        }
    }
}

// One panel of queries of one head; qkv (panels, 3K, LANES).
static void attend(const LatentAttention &op, size_t query, const float *qkv, float *scores,
                   float *taken_rows, float *out) {
    const size_t head = op.head, panels = panels_of(op.latents), jump = 3 * head * LANES;
    const float *q = qkv + query * jump, *k = qkv + head * LANES, *v = k + head * LANES;
    Taken taken;
    for (int j = 0; j < NV; j++) {
        taken.most[j] = all(-__builtin_inff());
        taken.sum[j] = vf{};
    }
    __builtin_memset(taken_rows, 0, head * LANES * sizeof(float));
    for (size_t panel = 0; panel < panels; panel += KEYS / LANES) {
        vf most[NV], shrink[NV];
        for (int j = 0; j < NV; j++)
            most[j] = taken.most[j];
        size_t n = 0;
        for (size_t p = panel; p < panels && p < panel + KEYS / LANES; p++) {
            const size_t here = static_cast<size_t>(valid(op.latents, p));
            for (size_t row = 0, m; row < here; row += m) {
                m = step(here - row);
                with(m, [&](auto M) INLINE_LAMBDA {
                    auto c = multiply<M.value, COLUMN>(k + p * jump + row, q, head);
                    keep(c, scores + (n + row) * LANES, here - row, most);
                });
            }
            n += here;
        }
        weigh(scores, n, most, taken, shrink);
        for (size_t row = 0, m; row < head; row += m) {
            m = step(head - row);
            with(m, [&](auto M) INLINE_LAMBDA {
                auto c = multiply<M.value, ROW>(v + panel * jump + row * LANES, scores, n, jump);
                take(c, taken_rows + row * LANES, shrink);
            });
        }
    }
    finish(taken_rows, taken, op.turn, panels * LANES, query, head, 2, 1, out);
}

// (D, L) of one window: what heads gave, multiplied, and the residual.
static void put_together(const float *weights, const float *bias, size_t dim, size_t width,
                         const float *heads, const float *residual, float *y, size_t latents,
                         const Parallel &parallel) {
    each(parallel, panels_of(latents), [&](size_t panel) {
        product(weights, dim, width, heads + panel * width * LANES, 1, 0,
                [&](size_t, size_t row, const auto &c) INLINE_LAMBDA {
                    add(c, row, bias, residual, y, latents, panel);
                });
    });
}

static Result latent_attention(const LatentAttention &op, const float *x, float *y, size_t windows,
                               const Parallel &parallel) {
    const size_t panels = panels_of(op.latents), width = op.heads * op.head, head = op.head;
    Scratch shared(panels * LANES * (op.dim + width) + 64);
    if (!shared) return NO_MEMORY;
    float *normed = shared.take(panels * LANES * op.dim);
    float *heads = shared.take(panels * LANES * width);
    bool failed = false;
    for (size_t w = 0; w < windows; w++, x += op.dim * op.latents, y += op.dim * op.latents) {
        for (size_t p = 0; p < panels; p++)
            normalise(op.norm, op.dim, x, op.latents, p, normed + p * op.dim * LANES);
        each(parallel, op.heads, [&](size_t h) {
            Scratch own(3 * head * panels * LANES + (KEYS + MR + head) * LANES + 64);
            if (!own) {
                __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
                return;
            }
            float *qkv = own.take(3 * head * panels * LANES);
            float *scores = own.take((KEYS + MR) * LANES), *taken = own.take(head * LANES);
            product(op.qkv + h * 3 * head * op.dim, 3 * head, op.dim, normed, panels,
                    op.dim * LANES, [&](size_t p, size_t row, const auto &c) INLINE_LAMBDA {
                        turn_and_keep(c, row, head, 3 * head, op.turn, panels * LANES, p,
                                      qkv + p * 3 * head * LANES);
                    });
            for (size_t p = 0; p < panels; p++)
                attend(op, p, qkv, scores, taken, heads + (p * width + h * head) * LANES);
        });
        if (failed) return NO_MEMORY;
        put_together(op.out, op.bias, op.dim, width, heads, x, y, op.latents, parallel);
    }
    return DONE;
}

constexpr size_t GROUP = 64 / LANES; // panels of a feed-forward that go together

// Values times GELU of their gates, which are the odd rows.
template <int M>
INLINE void gate(const Tile<M> &c, size_t row, const float *bias, float *hidden) {
    UNROLL
    for (int i = 0; i < M; i += 2)
        UNROLL
        for (int j = 0; j < NV; j++) {
            vf value = c.at[i][j] + bias[row + i], by = c.at[i + 1][j] + bias[row + i + 1];
            store(hidden + (row + i) / 2 * LANES + j * W, value * gelu(by));
        }
}

static Result feed_forward(const FeedForward &op, const float *x, float *y, size_t windows,
                           size_t latents, const Parallel &parallel) {
    const size_t panels = panels_of(latents), groups = (panels + GROUP - 1) / GROUP;
    bool failed = false;
    each(parallel, windows * groups, [&](size_t task) {
        const size_t first = task % groups * GROUP;
        const size_t n = panels - first < GROUP ? panels - first : GROUP;
        const float *from = x + task / groups * op.dim * latents;
        float *to = y + task / groups * op.dim * latents;
        Scratch own(n * (op.dim + op.hidden) * LANES + 64);
        if (!own) {
            __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
            return;
        }
        float *normed = own.take(n * op.dim * LANES), *hidden = own.take(n * op.hidden * LANES);
        for (size_t p = 0; p < n; p++)
            normalise(op.norm, op.dim, from, latents, first + p, normed + p * op.dim * LANES);
        product(op.in, 2 * op.hidden, op.dim, normed, n, op.dim * LANES,
                [&](size_t p, size_t row, const auto &c) INLINE_LAMBDA {
                    gate(c, row, op.in_bias, hidden + p * op.hidden * LANES);
                });
        product(op.out, op.dim, op.hidden, hidden, n, op.hidden * LANES,
                [&](size_t p, size_t row, const auto &c) INLINE_LAMBDA {
                    add(c, row, op.bias, from, to, latents, first + p);
                });
    });
    return failed ? NO_MEMORY : DONE;
}
