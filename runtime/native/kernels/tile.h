// The one product of all: a tile of M rows by one panel of latents, kept in registers.
//
// B is always a panel: (n_k, LANES). A is one number of each row at each step, and lies in one of
// three ways. What becomes of a finished tile is said by whoever asked for it.

enum Lying {
    PACKED, // (n_k, M): weights, and what was copied to be like them
    COLUMN, // (n_k, LANES): rows of A are columns of a panel
    ROW     // (n_k/LANES panels that are `jump` apart; M, LANES): n_k runs along panels
};

template <int M> struct Tile {
    vf at[M][NV];
};

template <int M, Lying lying>
INLINE void multiply_some(Tile<M> &c, const float *a, const float *b, size_t n_k) {
    for (size_t k = 0; k < n_k; k++) {
        vf row[NV];
        UNROLL
        for (int j = 0; j < NV; j++) {
            row[j] = load(b + k * LANES + j * W);
            IN_REGISTER(row[j]); // or the compiler reads it again for each row of the tile
        }
        UNROLL
        for (int i = 0; i < M; i++) {
            vf x = all(lying == PACKED   ? a[k * M + i]
                       : lying == COLUMN ? a[k * LANES + i]
                                         : a[i * LANES + k]);
            UNROLL
            for (int j = 0; j < NV; j++)
                c.at[i][j] += x * row[j];
        }
    }
}

template <int M, Lying lying>
INLINE Tile<M> multiply(const float *a, const float *b, size_t n_k, size_t jump = 0) {
    Tile<M> c;
    UNROLL
    for (int i = 0; i < M; i++)
        UNROLL
        for (int j = 0; j < NV; j++)
            c.at[i][j] = vf{};
    if (lying != ROW) {
        multiply_some<M, lying>(c, a, b, n_k);
        return c;
    }
    for (; n_k > LANES; n_k -= LANES, a += jump, b += LANES * LANES)
        multiply_some<M, lying>(c, a, b, LANES);
    multiply_some<M, lying>(c, a, b, n_k);
    return c;
}

// How many rows the next tile has: an even number, so that pairs stay together.
INLINE size_t step(size_t left) {
    if (left == MR + 2) return MR > 6 ? 6 : 4; // not a tile of two, which would wait for itself
    return left >= MR ? MR : (left + 1) & ~size_t(1);
}

template <int N> struct Rows { static constexpr int value = N; };

// Calls `f` with the number as a constant.
template <class F> INLINE void with(size_t rows, F f) {
    switch (rows) {
#if PE_MR >= 12
    case 12: return f(Rows<12>{});
    case 10: return f(Rows<10>{});
#endif
#if PE_MR >= 8
    case 8: return f(Rows<8>{});
#endif
    case 6: return f(Rows<6>{});
    case 4: return f(Rows<4>{});
    default: return f(Rows<2>{});
    }
}

// (rows, n_k) weights packed, by `n` panels that are `apart`; `f(panel, row, tile)` takes each
// tile. A tile of weights serves all panels while it is in the nearest cache.
template <class F>
INLINE void product(const float *a, size_t rows, size_t n_k, const float *b, size_t n,
                    size_t apart, F f) {
    for (size_t row = 0, m; row < rows; row += m, a += m * n_k) {
        m = step(rows - row);
        with(m, [&](auto M) INLINE_LAMBDA {
            for (size_t panel = 0; panel < n; panel++)
                f(panel, row, multiply<M.value, PACKED>(a, b + panel * apart, n_k));
        });
    }
}

// The order that `product` reads (rows, n_k) in; rows are even.
static void pack(const float *a, size_t rows, size_t n_k, float *out) {
    for (size_t row = 0, m; row < rows; row += m) {
        m = step(rows - row);
        for (size_t k = 0; k < n_k; k++)
            for (size_t i = 0; i < m; i++)
                *out++ = row + i < rows ? a[(row + i) * n_k + k] : 0.0f;
    }
}

INLINE size_t panels_of(size_t latents) { return (latents + LANES - 1) / LANES; }

// Latents of a panel that are there.
INLINE ptrdiff_t valid(size_t latents, size_t panel) {
    size_t left = latents - panel * LANES;
    return static_cast<ptrdiff_t>(left < LANES ? left : LANES);
}

template <class F> static void each(const Parallel &parallel, size_t n, F f) {
    if (n == 1) return f(0);
    auto call = [](void *data, size_t i) { (*static_cast<F *>(data))(i); };
    parallel.run(parallel.context, call, n, &f);
}

// LayerNorm of one panel of (D, L), as a panel; latents that are not there get the bias.
static void normalise(const Norm &norm, size_t dim, const float *x, size_t latents, size_t panel,
                      float *out) {
    const ptrdiff_t n = valid(latents, panel);
    x += panel * LANES;
    vf mean[NV] = {}, square[NV] = {};
    for (size_t d = 0; d < dim; d++)
        for (int j = 0; j < NV; j++) {
            vf v = load_some(x + d * latents + j * W, n - j * W);
            store(out + d * LANES + j * W, v);
            mean[j] += v;
        }
    for (int j = 0; j < NV; j++)
        mean[j] /= static_cast<float>(dim);
    for (size_t d = 0; d < dim; d++)
        for (int j = 0; j < NV; j++) {
            vf v = load(out + d * LANES + j * W) - mean[j];
            square[j] += v * v;
        }
    for (int j = 0; j < NV; j++)
        for (int i = 0; i < W; i++)
            square[j][i] = 1.0f / __builtin_sqrtf(square[j][i] / static_cast<float>(dim) + 1e-5f);
    for (size_t d = 0; d < dim; d++)
        for (int j = 0; j < NV; j++) {
            float *at = out + d * LANES + j * W;
            store(at, (load(at) - mean[j]) * square[j] * norm.weight[d] + norm.bias[d]);
        }
}

// One panel of (D, L), as a panel; latents that are not there are 0.
static void read_panel(const float *x, size_t dim, size_t latents, size_t panel, float *out) {
    const ptrdiff_t n = valid(latents, panel);
    for (size_t d = 0; d < dim; d++)
        for (int j = 0; j < NV; j++)
            store(out + d * LANES + j * W,
                  load_some(x + d * latents + panel * LANES + j * W, n - j * W));
}

// Rows of a tile, as they are.
template <int M> INLINE void put(const Tile<M> &c, float *out) {
    UNROLL
    for (int i = 0; i < M; i++)
        UNROLL
        for (int j = 0; j < NV; j++)
            store(out + i * LANES + j * W, c.at[i][j]);
}

// y = tile + bias + residual, rows of (D, L).
template <int M>
INLINE void add(const Tile<M> &c, size_t row, const float *bias, const float *residual, float *y,
                size_t latents, size_t panel) {
    const ptrdiff_t n = valid(latents, panel);
    UNROLL
    for (int i = 0; i < M; i++)
        UNROLL
        for (int j = 0; j < NV; j++) {
            size_t at = (row + i) * latents + panel * LANES + j * W;
            if (n <= j * W) continue;
            vf old = load_some(residual + at, n - j * W);
            store_some(y + at, c.at[i][j] + bias[row + i] + old, n - j * W);
        }
}
