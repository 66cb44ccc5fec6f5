// Attention of latents to spikes and to the boundary token, which is where the softmax begins.

// The spikes that are there, and the units that they are of.
struct Present {
    float *time;
    int32_t *place; // in `units`
    int32_t *units; // those that occur
    size_t n, n_units;
};

// A unit's row as ONNX counts it, from the end when negative; -1 when there is none.
INLINE int64_t row_of(int32_t unit, size_t units) {
    int64_t row = unit < 0 ? unit + static_cast<int64_t>(units) : unit;
    return row >= 0 && row < static_cast<int64_t>(units) ? row : -1;
}

// Padding is left out, but not when its time is no number: the core says NaN then.
static bool gather(const Spikes &spikes, size_t window, int32_t *place_of, Present &present) {
    const size_t first = window * spikes.n;
    present.n = present.n_units = 0;
    for (size_t u = 0; u < spikes.units; u++)
        place_of[u] = -1;
    for (size_t i = first; i < first + spikes.n; i++) {
        const float time = spikes.time[i];
        if (!spikes.mask[i] && time - time == 0.0f) continue;
        int64_t row = row_of(spikes.unit[i], spikes.units);
        if (row < 0 && !spikes.mask[i]) row = 0;
        if (row < 0) return false;
        if (place_of[row] < 0) {
            place_of[row] = static_cast<int32_t>(present.n_units);
            present.units[present.n_units++] = static_cast<int32_t>(row);
        }
        present.time[present.n] = time;
        present.place[present.n++] = place_of[row];
    }
    return true;
}

// Cosines, then sines of each spike's angles: (n, 2, pairs rounded up to vectors).
static void turn_table(const SpikeAttention &op, const Present &present, size_t stride,
                       float *table) {
    for (size_t s = 0; s < present.n; s++)
        for (size_t i = 0; i < stride; i += W / 2) {
            half omega;
            __builtin_memcpy(&omega, op.omega + i, sizeof omega);
            cos_sin(omega * present.time[s], table + 2 * s * stride + i,
                    table + (2 * s + 1) * stride + i);
        }
}

// Where number k of row s is, of a block whose rows are cut into pieces of LANES.
INLINE size_t piece(size_t k, size_t s) { return (k / LANES * BLOCK + s) * LANES + k % LANES; }

// The first 2P numbers of a row turned by the spike's time, into a block.
INLINE void turn_row(const float *row, const float *cos, size_t stride, size_t pairs, float *block,
                     size_t s) {
    const float *sin = cos + stride;
    size_t i = 0;
    if (pairs % W == 0)
        for (; i < pairs; i += W) {
            vf x = load(row + i), y = load(row + pairs + i), c = load(cos + i), n = load(sin + i);
            store(block + piece(i, s), x * c - y * n);
            store(block + piece(pairs + i, s), y * c + x * n);
        }
    for (; i < pairs; i++) {
        float x = row[i], y = row[pairs + i];
        block[piece(i, s)] = x * cos[i] - y * sin[i];
        block[piece(pairs + i, s)] = y * cos[i] + x * sin[i];
    }
}

// Scores of what does not turn: (units that occur, period) by panels of it.
static void still_scores(const SpikeAttention &op, const Spikes &spikes, const Present &present,
                         size_t h, float *packed, float *scores) {
    const size_t still = op.head - 2 * op.pairs, panels = panels_of(op.period);
    const size_t width = 2 * op.heads * op.head;
    for (size_t u = 0, m; u < present.n_units; u += m) {
        m = step(present.n_units - u);
        for (size_t i = 0; i < m; i++) {
            size_t at = u + i < present.n_units ? u + i : u;
            const float *key = spikes.unit_kv + static_cast<size_t>(present.units[at]) * width +
                               h * op.head + 2 * op.pairs;
            for (size_t k = 0; k < still; k++)
                packed[k * m + i] = key[k];
        }
        for (size_t p = 0; p < panels; p++)
            with(m, [&](auto M) INLINE_LAMBDA {
                auto c = multiply<M.value, PACKED>(
                    packed, op.still + (h * panels + p) * still * LANES, still);
                for (int i = 0; i < M.value; i++)
                    for (int j = 0; j < NV; j++)
                        store(scores + ((u + i) * panels + p) * LANES + j * W, c.at[i][j]);
            });
    }
}

// What a head's task works with.
struct Head {
    float *table, *still, *keys, *values, *scores, *taken_rows;
    Taken *taken;
};

// The boundary token is taken before any spike.
static void begin(const SpikeAttention &op, const Spikes &spikes, size_t h, const Head &own) {
    constexpr float log2e = 1.44269504f;
    for (size_t p = 0; p < panels_of(op.latents); p++) {
        float *rows = own.taken_rows + p * op.head * LANES;
        Taken &taken = own.taken[p];
        for (int j = 0; j < NV; j++) {
            taken.most[j] = vf{};
            taken.sum[j] = all(1.0f);
        }
        for (ptrdiff_t l = 0; l < LANES; l++) {
            const bool there = l < valid(op.latents, p);
            const size_t at = h * op.latents + p * LANES + static_cast<size_t>(l);
            if (there) taken.most[l / W][l % W] = spikes.lse[at] * log2e;
            for (size_t k = 0; k < op.head; k++)
                rows[k * LANES + l] = there ? spikes.boundary[at * op.head + k] : 0.0f;
        }
    }
}

// Scores of a panel, in powers of two, and of the spikes from number s of a block.
template <int M>
INLINE Tile<M> spike_scores(const SpikeAttention &op, const Present &present, size_t first,
                            size_t n, size_t s, size_t h, size_t panel, const Head &own) {
    const size_t panels = panels_of(op.latents), repeats = panels_of(op.period);
    const float *query = op.moving + (h * panels + panel) * 2 * op.pairs * LANES;
    const float *still = own.still + panel % repeats * LANES;
    auto c = multiply<M, ROW>(own.keys + s * LANES, query, 2 * op.pairs, BLOCK * LANES);
    UNROLL
    for (int i = 0; i < M; i++) {
        if (s + i >= n) break;
        const size_t unit = static_cast<size_t>(present.place[first + s + i]);
        UNROLL
        for (int j = 0; j < NV; j++)
            c.at[i][j] += load(still + unit * repeats * LANES + j * W);
    }
    return c;
}

// One panel takes from `n` spikes of a block.
static void take_block(const SpikeAttention &op, const Present &present, size_t first, size_t n,
                       size_t h, size_t panel, const Head &own) {
    float *rows = own.taken_rows + panel * op.head * LANES;
    Taken &taken = own.taken[panel];
    vf most[NV], shrink[NV];
    for (int j = 0; j < NV; j++)
        most[j] = taken.most[j];
    for (size_t s = 0, m; s < n; s += m) {
        m = step(n - s);
        with(m, [&](auto M) INLINE_LAMBDA {
            auto c = spike_scores<M.value>(op, present, first, n, s, h, panel, own);
            keep(c, own.scores + s * LANES, n - s, most);
        });
    }
    weigh(own.scores, n, most, taken, shrink);
    for (size_t row = 0, m; row < op.head; row += m) {
        const size_t left = op.head - row, here = LANES - row % LANES;
        m = step(left < here ? left : here);
        with(m, [&](auto M) INLINE_LAMBDA {
            auto c = multiply<M.value, COLUMN>(own.values + piece(row, 0), own.scores, n);
            take(c, rows + row * LANES, shrink);
        });
    }
}

// Keys and values of `n` spikes, turned, as a block.
static void lay_out(const SpikeAttention &op, const Spikes &spikes, const Present &present,
                    size_t first, size_t n, size_t h, const float *turns, size_t stride,
                    const Head &own) {
    const size_t width = op.heads * op.head;
    for (size_t s = 0; s < n; s++) {
        const size_t unit = static_cast<size_t>(present.units[present.place[first + s]]);
        const float *key = spikes.unit_kv + unit * 2 * width + h * op.head;
        const float *value = key + width, *cos = turns + 2 * (first + s) * stride;
        turn_row(key, cos, stride, op.pairs, own.keys, s);
        turn_row(value, cos, stride, op.pairs, own.values, s);
        for (size_t k = 2 * op.pairs; k < op.head; k++)
            own.values[piece(k, s)] = value[k];
    }
}

static void attend_to_spikes(const SpikeAttention &op, const Spikes &spikes, const Present &present,
                             size_t h, const float *turns, size_t stride, const Head &own,
                             float *heads) {
    const size_t panels = panels_of(op.latents), width = op.heads * op.head;
    still_scores(op, spikes, present, h, own.keys, own.still);
    begin(op, spikes, h, own);
    for (size_t first = 0; first < present.n; first += BLOCK) {
        const size_t n = present.n - first < BLOCK ? present.n - first : BLOCK;
        lay_out(op, spikes, present, first, n, h, turns, stride, own);
        for (size_t p = 0; p < panels; p++)
            take_block(op, present, first, n, h, p, own);
    }
    for (size_t p = 0; p < panels; p++)
        finish(own.taken_rows + p * op.head * LANES, own.taken[p], op.turn, panels * LANES, p,
               op.head, 1, op.pairs, heads + (p * width + h * op.head) * LANES);
}

// What is made once for a window, and how much memory a head's task takes.
struct Window {
    Present present;
    float *heads, *turns;
    int32_t *place_of;
    size_t stride, keys, values, still, taken, panels;
};

static Window sizes_of(const SpikeAttention &op, const Spikes &spikes) {
    const size_t most_units = spikes.units < spikes.n ? spikes.units : spikes.n;
    Window w = {};
    w.panels = panels_of(op.latents);
    w.stride = (op.pairs + W - 1) / W * W;
    w.keys = panels_of(2 * op.pairs) * BLOCK * LANES + op.head * MR;
    w.values = panels_of(op.head) * BLOCK * LANES;
    w.still = (most_units + MR) * panels_of(op.period) * LANES;
    w.taken = w.panels * sizeof(Taken) / sizeof(float);
    return w;
}

static size_t shared_floats(const SpikeAttention &op, const Spikes &spikes, const Window &w) {
    return 3 * spikes.n + 2 * spikes.n * w.stride + spikes.units +
           w.panels * op.heads * op.head * LANES + 128;
}

static void take_shared(const SpikeAttention &op, const Spikes &spikes, Scratch &shared,
                        Window &w) {
    w.heads = shared.take(w.panels * op.heads * op.head * LANES);
    w.turns = shared.take(2 * spikes.n * w.stride);
    w.place_of = reinterpret_cast<int32_t *>(shared.take(spikes.units));
    w.present.time = shared.take(spikes.n);
    w.present.place = reinterpret_cast<int32_t *>(shared.take(spikes.n));
    w.present.units = reinterpret_cast<int32_t *>(shared.take(spikes.n));
}

static size_t head_floats(const SpikeAttention &op, const Window &w) {
    return w.keys + w.values + w.still + BLOCK * LANES + w.panels * op.head * LANES + w.taken + 128;
}

static Head take_head(const SpikeAttention &op, const Window &w, Scratch &own) {
    Head head = {};
    head.keys = own.take(w.keys);
    head.values = own.take(w.values);
    head.still = own.take(w.still);
    head.scores = own.take(BLOCK * LANES);
    head.taken_rows = own.take(w.panels * op.head * LANES);
    head.taken = reinterpret_cast<Taken *>(own.take(w.taken));
    return head;
}

static Result spike_attention(const SpikeAttention &op, const Spikes &spikes, float *y,
                              const Parallel &parallel) {
    Window window = sizes_of(op, spikes);
    Scratch shared(shared_floats(op, spikes, window));
    if (!shared) return NO_MEMORY;
    take_shared(op, spikes, shared, window);
    bool failed = false;
    for (size_t w = 0; w < spikes.windows; w++, y += op.dim * op.latents) {
        if (!gather(spikes, w, window.place_of, window.present)) return BAD_UNIT;
        turn_table(op, window.present, window.stride, window.turns);
        each(parallel, op.heads, [&](size_t h) {
            Scratch own(head_floats(op, window));
            if (!own) {
                __atomic_store_n(&failed, true, __ATOMIC_RELAXED);
                return;
            }
            attend_to_spikes(op, spikes, window.present, h, window.turns, window.stride,
                             take_head(op, window, own), window.heads);
        });
        if (failed) return NO_MEMORY;
        put_together(op.out, op.bias, op.dim, op.heads * op.head, window.heads, op.latent, y,
                     op.latents, parallel);
    }
    return DONE;
}
