// Attention of queries, which are one vector turned by each query's time, to the latents.

// (D,) normalised, by weights (D, C): (C,).
static void session_query(const QueryAttention &op, const float *session, float *normed,
                          float *out) {
    const size_t width = op.heads * op.head;
    double mean = 0, square = 0;
    for (size_t d = 0; d < op.dim; d++)
        mean += session[d];
    mean /= static_cast<double>(op.dim);
    for (size_t d = 0; d < op.dim; d++)
        square += (session[d] - mean) * (session[d] - mean);
    const double scale = 1.0 / __builtin_sqrt(square / static_cast<double>(op.dim) + 1e-5);
    for (size_t d = 0; d < op.dim; d++)
        normed[d] = static_cast<float>((session[d] - mean) * scale) * op.query_norm.weight[d] +
                    op.query_norm.bias[d];
    for (size_t c = 0; c < width; c++)
        out[c] = 0.0f;
    for (size_t d = 0; d < op.dim; d++)
        for (size_t c = 0; c < width; c++)
            out[c] += normed[d] * op.query[d * width + c];
}

// One head's query turned by a time: rows in the order of its keys, pairs together.
static void turned_query(const QueryAttention &op, const float *query, float time, float *out) {
    constexpr float log2e = 1.44269504f;
    const size_t pairs = op.turn.pairs;
    for (size_t i = 0; i < pairs; i++) {
        half angle = half{} + time * op.omega[i];
        float cos[W], sin[W];
        cos_sin(angle, cos, sin);
        const float x = query[i] * log2e, y = query[pairs + i] * log2e;
        out[2 * i] = x * cos[0] - y * sin[0];
        out[2 * i + 1] = y * cos[0] + x * sin[0];
    }
    for (size_t k = 2 * pairs; k < op.head; k++)
        out[k] = query[k] * log2e;
}

// One head of one query; keys and values (panels, 2C, LANES).
static void ask(const QueryAttention &op, size_t h, const float *query, const float *kv,
                float *scores, float *out) {
    const size_t panels = panels_of(op.latents), width = op.heads * op.head;
    float most = -__builtin_inff();
    for (size_t p = 0; p < panels; p++) {
        const float *keys = kv + (2 * width * p + h * op.head) * LANES;
        for (int j = 0; j < NV; j++) {
            vf score = {};
            for (size_t k = 0; k < op.head; k++)
                score += load(keys + k * LANES + j * W) * query[k];
            store(scores + p * LANES + j * W, score);
        }
        for (ptrdiff_t l = 0; l < valid(op.latents, p); l++) {
            const float score = scores[p * LANES + static_cast<size_t>(l)];
            most = score > most ? score : most;
        }
    }
    float sum = 0;
    for (size_t p = 0; p < panels; p++)
        for (int j = 0; j < NV; j++) {
            float *at = scores + p * LANES + j * W;
            vf weight = exp2(load(at) - most);
            for (ptrdiff_t l = 0; l < W; l++) {
                if (j * W + l >= valid(op.latents, p)) weight[l] = 0.0f;
                sum += weight[l];
            }
            store(at, weight);
        }
    for (size_t k = 0; k < op.head; k++) {
        vf value = {};
        for (size_t p = 0; p < panels; p++) {
            const float *row = kv + (2 * width * p + width + h * op.head + k) * LANES;
            for (int j = 0; j < NV; j++)
                value += load(row + j * W) * load(scores + p * LANES + j * W);
        }
        float all_lanes = 0;
        for (int i = 0; i < W; i++)
            all_lanes += value[i];
        out[k] = all_lanes / sum;
    }
}

static Result query_attention(const QueryAttention &op, const float *x, const float *session,
                              const float *time, size_t windows, size_t queries, float *y,
                              const Parallel &parallel) {
    const size_t panels = panels_of(op.latents), width = op.heads * op.head;
    Scratch shared(panels * LANES * (2 * width + op.dim + 1) + op.dim + 2 * width + 128);
    if (!shared) return NO_MEMORY;
    float *kv = shared.take(panels * LANES * 2 * width);
    float *normed = shared.take(panels * LANES * op.dim), *scores = shared.take(panels * LANES);
    float *query = shared.take(width), *turned = shared.take(op.head);
    session_query(op, session, normed, query);
    for (size_t w = 0; w < windows; w++, x += op.dim * op.latents) {
        each(parallel, panels, [&](size_t p) {
            float *panel = normed + p * op.dim * LANES;
            normalise(op.norm, op.dim, x, op.latents, p, panel);
            product(op.kv, 2 * width, op.dim, panel, 1, 0,
                    [&](size_t, size_t row, const auto &c) INLINE_LAMBDA {
                        turn_and_keep(c, row, op.head, width, op.turn, panels * LANES, p,
                                      kv + p * 2 * width * LANES);
                    });
        });
        for (size_t q = 0; q < queries; q++)
            for (size_t h = 0; h < op.heads; h++) {
                turned_query(op, query + h * op.head, time[w * queries + q], turned);
                ask(op, h, turned, kv, scores, y + (w * queries + q) * width + h * op.head);
            }
    }
    return DONE;
}
