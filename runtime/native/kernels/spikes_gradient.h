// Gradients of attention to spikes with respect to the unit table and the boundary token.
//
// The softmax's maximum and sum are those of the forward kernel, which runs again; after that each
// block of spikes is looked at once more. Gradients of keys and values come out as one row for each
// spike, so that they are turned back and added to its unit's row where they lie.

// What a head's task works with, besides what attention itself takes.
struct SpikeHead {
    float *grad;          // (panels; K, LANES): of what the head took, turned
    float *by_latent;     // (panels of K; L, LANES): the same
    float *weights, *pull; // (panels; BLOCK, LANES)
    float *keys, *values; // (panels of K; BLOCK, LANES)
    vf (*level)[NV];      // (panels,)
};

static size_t spike_head_floats(const SpikeAttention &op, const Window &w) {
    const size_t by_k = panels_of(op.head);
    return w.panels * op.head * LANES + by_k * op.latents * LANES + 2 * w.panels * BLOCK * LANES +
           2 * by_k * BLOCK * LANES + w.panels * LANES + 128;
}

static SpikeHead take_spike_head(const SpikeAttention &op, const Window &w, Scratch &own) {
    const size_t by_k = panels_of(op.head);
    SpikeHead mine = {};
    mine.grad = own.take(w.panels * op.head * LANES);
    mine.by_latent = own.take(by_k * op.latents * LANES);
    mine.weights = own.take(w.panels * BLOCK * LANES);
    mine.pull = own.take(w.panels * BLOCK * LANES);
    mine.keys = own.take(by_k * BLOCK * LANES);
    mine.values = own.take(by_k * BLOCK * LANES);
    mine.level = reinterpret_cast<vf(*)[NV]>(own.take(w.panels * LANES));
    return mine;
}

// Of what a head took: multiplied back, its product with what was taken, turned, and by latents.
static void taken_gradient(const SpikeAttentionGradient &op, const float *grads,
                           const float *heads, size_t h, const SpikeHead &mine) {
    const SpikeAttention &f = op.forward;
    const size_t head = f.head, panels = panels_of(f.latents), padded = panels * LANES;
    product(op.out + h * head * f.dim, head, f.dim, grads, panels, f.dim * LANES,
            [&](size_t p, size_t row, const auto &c)
                INLINE_LAMBDA { put(c, mine.grad + (p * head + row) * LANES); });
    __builtin_memset(mine.by_latent, 0,
                     panels_of(head) * f.latents * LANES * sizeof(float));
    for (size_t p = 0; p < panels; p++) {
        float *grad = mine.grad + p * head * LANES;
        const float *taken = heads + (p * f.heads + h) * head * LANES;
        for (int j = 0; j < NV; j++) {
            vf sum = {};
            for (size_t k = 0; k < head; k++)
                sum += load(grad + k * LANES + j * W) * load(taken + k * LANES + j * W);
            mine.level[p][j] = sum;
            for (size_t i = 0; i < f.pairs; i++) {
                const size_t lane = i * padded + p * LANES + j * W;
                float *a = grad + i * LANES + j * W, *b = a + f.pairs * LANES;
                vf x = load(a), y = load(b), cos = load(f.turn.cos + lane),
                   sin = load(f.turn.sin + lane);
                store(a, x * cos - y * sin);
                store(b, y * cos + x * sin);
            }
        }
        for (ptrdiff_t l = 0; l < valid(f.latents, p); l++)
            for (size_t k = 0; k < head; k++)
                mine.by_latent[(k / LANES * f.latents + p * LANES + l) * LANES + k % LANES] =
                    grad[k * LANES + l];
    }
}

// The boundary token is one of those that are attended to.
static void boundary_gradient(const SpikeAttention &op, const Spikes &spikes, size_t h,
                              const Head &own, const SpikeHead &mine, const SpikeGradients &sums) {
    constexpr float log2e = 1.44269504f;
    for (size_t p = 0; p < panels_of(op.latents); p++) {
        const Taken &taken = own.taken[p];
        vf share[NV];
        for (int j = 0; j < NV; j++) {
            vf score = {};
            for (ptrdiff_t i = 0; i < W && j * W + i < valid(op.latents, p); i++)
                score[i] = spikes.lse[h * op.latents + p * LANES + j * W + i] * log2e;
            share[j] = exp2(score - taken.most[j]) / taken.sum[j];
        }
        for (ptrdiff_t l = 0; l < valid(op.latents, p); l++) {
            const size_t at = h * op.latents + p * LANES + l;
            const float weight = share[l / W][l % W], *value = spikes.boundary + at * op.head;
            const float *grad = mine.grad + p * op.head * LANES + l;
            float pull = 0.0f;
            for (size_t k = 0; k < op.head; k++) {
                pull += value[k] * grad[k * LANES];
                sums.boundary[at * op.head + k] += weight * grad[k * LANES];
            }
            sums.lse[at] += weight * (pull - mine.level[p][l / W][l % W]);
        }
    }
}

// Weights and gradients of scores of `n` spikes of a block, for one panel.
static void pull_block(const SpikeAttention &op, const Present &present, size_t first, size_t n,
                       size_t h, size_t panel, const Head &own, const SpikeHead &mine) {
    const Taken &taken = own.taken[panel];
    const float *grad = mine.grad + panel * op.head * LANES;
    for (size_t s = 0, m; s < n; s += m) {
        m = step(n - s);
        with(m, [&](auto M) INLINE_LAMBDA {
            auto c = spike_scores<M.value>(op, present, first, n, s, h, panel, own);
            float *weights = mine.weights + (panel * BLOCK + s) * LANES;
            float *pull = mine.pull + (panel * BLOCK + s) * LANES;
            for (int i = 0; i < M.value; i++)
                for (int j = 0; j < NV; j++)
                    store(weights + i * LANES + j * W,
                          exp2(c.at[i][j] - taken.most[j]) / taken.sum[j]);
            c = multiply<M.value, ROW>(own.values + s * LANES, grad, op.head, BLOCK * LANES);
            for (int i = 0; i < M.value; i++)
                for (int j = 0; j < NV; j++)
                    store(pull + i * LANES + j * W, (c.at[i][j] - mine.level[panel][j]) *
                                                        load(weights + i * LANES + j * W));
        });
    }
}

// One row (pieces of BLOCK) turned back by the spike's time and added to its unit's.
static void add_row(const SpikeAttention &op, const float *block, size_t s, const float *cos,
                    size_t stride, float *sum) {
    const float *sin = cos + stride;
    for (size_t i = 0; i < op.pairs; i++) {
        const float x = block[piece(i, s)], y = block[piece(op.pairs + i, s)];
        sum[i] += x * cos[i] + y * sin[i];
        sum[op.pairs + i] += y * cos[i] - x * sin[i];
    }
    for (size_t k = 2 * op.pairs; k < op.head; k++)
        sum[k] += block[piece(k, s)];
}

// Of keys and values of `n` spikes, into the rows of their units.
static void add_block(const SpikeAttentionGradient &op, const Window &w, size_t first, size_t n,
                      size_t h, const SpikeHead &mine, float *unit_kv) {
    const SpikeAttention &f = op.forward;
    const size_t by_k = panels_of(f.head), jump = BLOCK * LANES, width = f.heads * f.head;
    for (size_t k = 0; k < by_k; k++) {
        const float *query = op.query + (h * by_k + k) * f.latents * LANES;
        const float *grad = mine.by_latent + k * f.latents * LANES;
        for (size_t s = 0, m; s < n; s += m) {
            m = step(n - s);
            with(m, [&](auto M) INLINE_LAMBDA {
                const size_t at = (k * BLOCK + s) * LANES;
                put(multiply<M.value, ROW>(mine.pull + s * LANES, query, f.latents, jump),
                    mine.keys + at);
                put(multiply<M.value, ROW>(mine.weights + s * LANES, grad, f.latents, jump),
                    mine.values + at);
            });
        }
    }
    for (size_t s = 0; s < n; s++) {
        const auto unit = static_cast<size_t>(w.present.units[w.present.place[first + s]]);
        const float *cos = w.turns + 2 * (first + s) * w.stride;
        float *row = unit_kv + unit * 2 * width + h * f.head;
        add_row(f, mine.keys, s, cos, w.stride, row);
        add_row(f, mine.values, s, cos, w.stride, row + width);
    }
}

static Result spike_attention_gradient(const SpikeAttentionGradient &op, const Spikes &spikes,
                                       const float *grad, const SpikeGradients &sums,
                                       const Parallel &parallel) {
    const SpikeAttention &f = op.forward;
    const size_t width = f.heads * f.head;
    Window window = sizes_of(f, spikes);
    Scratch shared(shared_floats(f, spikes, window) + window.panels * f.dim * LANES + 64);
    if (!shared) return NO_MEMORY;
    take_shared(f, spikes, shared, window);
    float *grads = shared.take(window.panels * f.dim * LANES);
    __builtin_memset(sums.unit_kv, 0, spikes.units * 2 * width * sizeof(float));
    __builtin_memset(sums.lse, 0, f.heads * f.latents * sizeof(float));
    __builtin_memset(sums.boundary, 0, width * f.latents * sizeof(float));
    bool failed = false;
    for (size_t w = 0; w < spikes.windows; w++) {
        if (!gather(spikes, w, window.place_of, window.present)) return BAD_UNIT;
        turn_table(f, window.present, window.stride, window.turns);
        for (size_t p = 0; p < window.panels; p++)
            read_panel(grad + w * f.dim * f.latents, f.dim, f.latents, p,
                       grads + p * f.dim * LANES);
        each(parallel, f.heads, [&](size_t h) {
            Scratch memory(head_floats(f, window) + spike_head_floats(f, window));
            if (!memory) {
                __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
                return;
            }
            const Head own = take_head(f, window, memory);
            const SpikeHead mine = take_spike_head(f, window, memory);
            attend_to_spikes(f, spikes, window.present, h, window.turns, window.stride, own,
                             window.heads);
            taken_gradient(op, grads, window.heads, h, mine);
            boundary_gradient(f, spikes, h, own, mine, sums);
            for (size_t first = 0; first < window.present.n; first += BLOCK) {
                const size_t left = window.present.n - first, n = left < BLOCK ? left : BLOCK;
                lay_out(f, spikes, window.present, first, n, h, window.turns, window.stride, own);
                for (size_t p = 0; p < window.panels; p++)
                    pull_block(f, window.present, first, n, h, p, own, mine);
                add_block(op, window, first, n, h, mine, sums.unit_kv);
            }
        });
        if (failed) return NO_MEMORY;
    }
    return DONE;
}
