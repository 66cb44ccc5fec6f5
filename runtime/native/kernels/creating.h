// An operator when it is created: its sizes, and its weights packed. Included by running.h.
#ifndef PE_CREATING_H
#define PE_CREATING_H

#include "operators.h"

#include "prepare.h"

namespace poyo {
namespace {

struct Kernel {
    const pe_ort_api *api;
    const Kernels *kernels;
    Memory memory;
    union {
        LatentAttention latent;
        FeedForward feed_forward;
        SpikeAttention spike;
        QueryAttention query;
        LatentAttentionGradient latent_gradient;
        FeedForwardGradient feed_forward_gradient;
        SpikeAttentionGradient spike_gradient;
    };
};

size_t even(size_t n) { return n + n % 2; }

void head_size(Reading &reading, const Size &width, const Size &heads, const Size &pairs) {
    if (reading.status) return;
    const size_t head = heads.value ? width.value / heads.value : 0;
    reading.need(head && width.value % heads.value == 0, "heads", "a divisor of the width");
    reading.need(head % 2 == 0 && 2 * pairs.value <= head && head <= 1024, "head",
                 "an even size of at most 1024, not less than what turns");
}

constexpr float log2e = 1.44269504f;

void create_latent(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    Size d, c, c3, l, p, heads;
    r.attribute(info, "heads", &heads);
    const float *norm = r.weight(info, 1, "norm.w", &d), *norm_b = r.weight(info, 2, "norm.b", &d);
    const float *qkv = r.weight(info, 3, "qkv.w", &d, &c3);
    const float *out = r.weight(info, 4, "out.w", &c, &d), *bias = r.weight(info, 5, "out.b", &d);
    const float *cos = r.weight(info, 6, "cos", &l, &p), *sin = r.weight(info, 7, "sin", &l, &p);
    head_size(r, c, heads, p);
    r.need(r.status || c3.value == 3 * c.value, "qkv.w", "queries, keys and values");
    r.need(r.status || d.value % 2 == 0, "dim", "an even size");
    if (r.status) return;
    const size_t head = c.value / heads.value, width = c.value, pairs = p.value;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    k.latent = {
        d.value,
        l.value,
        heads.value,
        head,
        {m.copy(norm, d.value), m.copy(norm_b, d.value)},
        {by_pair(s, m, cos, l.value, pairs), by_pair(s, m, sin, l.value, pairs), pairs},
        packed(s, m, heads.value, 3 * head, d.value,
               [&](size_t row, size_t i) {
                   const size_t h = row / (3 * head), part = row / head % 3;
                   const size_t at = part * width + h * head + of_pairs(row % head, pairs);
                   return qkv[i * 3 * width + at] * (part == 0 ? log2e : 1.0f);
               }),
        packed(s, m, 1, d.value, width,
               [&](size_t row, size_t i) {
                   return out[(i / head * head + of_pairs(i % head, pairs)) * d.value + row];
               }),
        m.copy(bias, d.value),
    };
}

void create_feed_forward(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    Size d, h;
    const float *norm = r.weight(info, 1, "norm.w", &d), *norm_b = r.weight(info, 2, "norm.b", &d);
    const float *value = r.weight(info, 3, "value.w", &d, &h);
    const float *value_b = r.weight(info, 4, "value.b", &h);
    const float *gate = r.weight(info, 5, "gate.w", &d, &h);
    const float *gate_b = r.weight(info, 6, "gate.b", &h);
    const float *out = r.weight(info, 7, "out.w", &h, &d), *bias = r.weight(info, 8, "out.b", &d);
    r.need(r.status || d.value % 2 == 0, "dim", "an even size");
    if (r.status) return;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    float *in_bias = m.floats(2 * h.value);
    for (size_t i = 0; in_bias && i < h.value; i++) {
        in_bias[2 * i] = value_b[i];
        in_bias[2 * i + 1] = gate_b[i];
    }
    k.feed_forward = {
        d.value,
        h.value,
        {m.copy(norm, d.value), m.copy(norm_b, d.value)},
        packed(s, m, 1, 2 * h.value, d.value,
               [&](size_t row, size_t i) {
                   const float *from = row % 2 ? gate : value;
                   return from[i * h.value + row / 2];
               }),
        in_bias,
        packed(s, m, 1, d.value, h.value,
               [&](size_t row, size_t i) { return out[i * d.value + row]; }),
        m.copy(bias, d.value),
    };
}

void create_spike(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    Size h, l, head, p, d, c;
    const float *query = r.weight(info, 6, "latent_query", &h, &l, &head);
    const float *omega = r.weight(info, 7, "omega", &p);
    const float *cos = r.weight(info, 8, "cos", &l, &p), *sin = r.weight(info, 9, "sin", &l, &p);
    const float *latent = r.weight(info, 10, "latent", &l, &d);
    const float *out = r.weight(info, 11, "out.w", &c, &d), *bias = r.weight(info, 12, "out.b", &d);
    r.need(r.status || c.value == h.value * head.value, "out.w", "rows of all heads");
    head_size(r, c, h, p);
    r.need(r.status || d.value % 2 == 0, "dim", "an even size");
    if (r.status) return;
    const size_t moving = 2 * p.value, heads = h.value, latents = l.value, width = head.value;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    float *frequencies = m.floats(p.value + 16), *rows = m.floats(d.value * latents);
    if (frequencies) std::memcpy(frequencies, omega, p.value * sizeof(float));
    for (size_t i = 0; rows && i < latents * d.value; i++)
        rows[i % d.value * latents + i / d.value] = latent[i];
    const size_t period = period_of(query, heads, latents, width, moving, s.lanes);
    k.spike = {
        d.value,
        latents,
        heads,
        width,
        p.value,
        period,
        frequencies,
        {by_pair(s, m, cos, latents, p.value), by_pair(s, m, sin, latents, p.value), p.value},
        query_panels(s, m, query, heads, latents, width, 0, moving, latents),
        query_panels(s, m, query, heads, latents, width, moving, width, period),
        rows,
        packed(s, m, 1, d.value, c.value,
               [&](size_t row, size_t i) { return out[i * d.value + row]; }),
        m.copy(bias, d.value),
    };
}

void create_query(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    Size d, c, c2, l, p, heads;
    r.attribute(info, "heads", &heads);
    const float *q_norm = r.weight(info, 3, "query_norm.w", &d);
    const float *q_norm_b = r.weight(info, 4, "query_norm.b", &d);
    const float *query = r.weight(info, 5, "query.w", &d, &c);
    const float *norm = r.weight(info, 6, "norm.w", &d), *norm_b = r.weight(info, 7, "norm.b", &d);
    const float *kv = r.weight(info, 8, "key_value.w", &d, &c2);
    const float *cos = r.weight(info, 9, "cos", &l, &p), *sin = r.weight(info, 10, "sin", &l, &p);
    const float *omega = r.weight(info, 11, "omega", &p);
    head_size(r, c, heads, p);
    r.need(r.status || c2.value == 2 * c.value, "key_value.w", "keys and values");
    if (r.status) return;
    const size_t width = c.value, head = width / heads.value, pairs = p.value;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    k.query = {
        d.value,
        l.value,
        heads.value,
        head,
        {m.copy(q_norm, d.value), m.copy(q_norm_b, d.value)},
        {m.copy(norm, d.value), m.copy(norm_b, d.value)},
        {by_pair(s, m, cos, l.value, pairs), by_pair(s, m, sin, l.value, pairs), pairs},
        m.copy(omega, pairs),
        m.copy(query, d.value * width),
        packed(s, m, 1, 2 * width, d.value,
               [&](size_t row, size_t i) {
                   const size_t at = row < width ? of_pairs(row % head, pairs) : row % head;
                   return kv[i * 2 * width + row / head * head + at];
               }),
    };
}

// Gradients come behind the inputs of what they are gradients of, so weights are where they were.
void create_latent_gradient(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    create_latent(k, r, info);
    if (r.status) return;
    const LatentAttention f = k.latent;
    const size_t width = f.heads * f.head, head = f.head, pairs = f.turn.pairs;
    Size d{f.dim}, c{width}, c3{3 * width}, l{f.latents}, p{pairs};
    const float *qkv = r.weight(info, 3, "qkv.w", &d, &c3),
                *out = r.weight(info, 4, "out.w", &c, &d);
    const float *sin = r.weight(info, 7, "sin", &l, &p);
    if (r.status) return;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    float *minus_sin = m.floats(pairs * padded(s, f.latents));
    for (size_t i = 0; minus_sin && i < pairs * f.latents; i++)
        minus_sin[i % pairs * padded(s, f.latents) + i / pairs] = -sin[i];
    k.latent_gradient = {
        f,
        {f.turn.cos, minus_sin, pairs},
        packed(
            s, m, 1, f.dim, 3 * width,
            [&](size_t row, size_t i) {
                const size_t h = i / (3 * head), part = i / head % 3;
                return qkv[row * 3 * width + part * width + h * head + of_pairs(i % head, pairs)];
            }),
        packed(s, m, f.heads, head, f.dim,
               [&](size_t row, size_t i) {
                   return out[(row / head * head + of_pairs(row % head, pairs)) * f.dim + i];
               }),
    };
}

void create_feed_forward_gradient(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    create_feed_forward(k, r, info);
    if (r.status) return;
    const FeedForward f = k.feed_forward;
    Size d{f.dim}, h{f.hidden};
    const float *value = r.weight(info, 3, "value.w", &d, &h);
    const float *gate = r.weight(info, 5, "gate.w", &d, &h);
    const float *out = r.weight(info, 7, "out.w", &h, &d);
    if (r.status) return;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    k.feed_forward_gradient = {
        f,
        packed(
            s, m, 1, f.dim, 2 * f.hidden,
            [&](size_t row, size_t i) {
                const size_t at = row * f.hidden + i / 2;
                return i % 2 ? gate[at] : value[at];
            }),
        packed(s, m, 1, even(f.hidden), f.dim,
               [&](size_t row, size_t i) { return row < f.hidden ? out[row * f.dim + i] : 0.0f; }),
    };
}

void create_spike_gradient(Kernel &k, Reading &r, const OrtKernelInfo *info) {
    create_spike(k, r, info);
    if (r.status) return;
    const SpikeAttention f = k.spike;
    const size_t width = f.heads * f.head;
    Size h{f.heads}, l{f.latents}, head{f.head}, c{width}, d{f.dim};
    const float *query = r.weight(info, 6, "latent_query", &h, &l, &head);
    const float *out = r.weight(info, 11, "out.w", &c, &d);
    if (r.status) return;
    const Kernels &s = *k.kernels;
    Memory &m = k.memory;
    const size_t lanes = s.lanes, by_k = padded(s, f.head) / lanes;
    float *rows = m.floats(f.heads * by_k * f.latents * lanes);
    for (size_t i = 0; rows && i < width * f.latents; i++) {
        const size_t at = i % f.head, row = i / f.head; // of (H, L)
        rows[((row / f.latents * by_k + at / lanes) * f.latents + row % f.latents) * lanes +
             at % lanes] = query[i];
    }
    k.spike_gradient = {
        f,
        packed(s, m, f.heads, f.head, f.dim,
               [&](size_t row, size_t i) { return out[row * f.dim + i]; }),
        rows,
    };
}

} // namespace
} // namespace poyo

#endif
