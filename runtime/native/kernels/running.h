// An operator when it runs: its inputs and outputs, and one call of a kernel. Included by
// operators.cpp alone.
#ifndef PE_RUNNING_H
#define PE_RUNNING_H

#include "creating.h"

namespace poyo {
namespace {

void run_latent(Kernel &k, Reading &r, OrtKernelContext *context, const Parallel &parallel) {
    Size b, d{k.latent.dim}, l{k.latent.latents};
    auto *x = static_cast<const float *>(r.input(context, 0, "x", PE_ORT_FLOAT, &b, &d, &l));
    const int64_t shape[] = {int64_t(b.value), int64_t(d.value), int64_t(l.value)};
    float *y = r.output(context, shape, 3);
    if (y) r.finished(k.kernels->latent_attention(k.latent, x, y, b.value, parallel));
}

void run_feed_forward(Kernel &k, Reading &r, OrtKernelContext *context, const Parallel &parallel) {
    Size b, d{k.feed_forward.dim}, l;
    auto *x = static_cast<const float *>(r.input(context, 0, "x", PE_ORT_FLOAT, &b, &d, &l));
    const int64_t shape[] = {int64_t(b.value), int64_t(d.value), int64_t(l.value)};
    float *y = r.output(context, shape, 3);
    if (y) r.finished(k.kernels->feed_forward(k.feed_forward, x, y, b.value, l.value, parallel));
}

// Inputs of attention to spikes, and how many windows, spikes and units there are.
Spikes read_spikes(const SpikeAttention &op, Reading &r, OrtKernelContext *context) {
    Size b, n, u, c2{2 * op.heads * op.head}, h{op.heads}, l{op.latents}, head{op.head};
    Spikes s = {};
    s.unit = static_cast<const int32_t *>(r.input(context, 0, "spike_unit", PE_ORT_INT32, &b, &n));
    s.time = static_cast<const float *>(r.input(context, 1, "spike_time", PE_ORT_FLOAT, &b, &n));
    s.mask = static_cast<const bool *>(r.input(context, 2, "spike_mask", PE_ORT_BOOL, &b, &n));
    s.unit_kv = static_cast<const float *>(r.input(context, 3, "unit_kv", PE_ORT_FLOAT, &u, &c2));
    s.lse = static_cast<const float *>(r.input(context, 4, "boundary_lse", PE_ORT_FLOAT, &h, &l));
    s.boundary = static_cast<const float *>(
        r.input(context, 5, "boundary_value", PE_ORT_FLOAT, &h, &l, &head));
    r.need(n.value < size_t(1) << 30 && u.value < size_t(1) << 30, "spikes", "fewer");
    s.windows = b.value;
    s.n = n.value;
    s.units = u.value;
    return s;
}

void run_spike(Kernel &k, Reading &r, OrtKernelContext *context, const Parallel &parallel) {
    const SpikeAttention &op = k.spike;
    const Spikes s = read_spikes(op, r, context);
    const int64_t shape[] = {int64_t(s.windows), int64_t(op.dim), int64_t(op.latents)};
    float *y = r.output(context, shape, 3);
    if (y) r.finished(k.kernels->spike_attention(op, s, y, parallel));
}

void run_spike_gradient(Kernel &k, Reading &r, OrtKernelContext *context,
                        const Parallel &parallel) {
    const SpikeAttention &op = k.spike_gradient.forward;
    const Spikes s = read_spikes(op, r, context);
    Size b{s.windows}, d{op.dim}, l{op.latents};
    auto *grad = static_cast<const float *>(r.input(context, 13, "grad", PE_ORT_FLOAT, &b, &d, &l));
    r.need(r.status || b.value == s.windows, "grad", "as many windows");
    const int64_t heads = int64_t(op.heads), latents = int64_t(op.latents);
    const int64_t table[] = {int64_t(s.units), 2 * heads * int64_t(op.head)};
    const int64_t boundary[] = {heads, latents, int64_t(op.head)};
    SpikeGradients sums = {};
    sums.unit_kv = r.output(context, table, 2, 0);
    sums.lse = r.output(context, boundary, 2, 1);
    sums.boundary = r.output(context, boundary, 3, 2);
    if (sums.boundary)
        r.finished(k.kernels->spike_attention_gradient(k.spike_gradient, s, grad, sums, parallel));
}

void run_latent_gradient(Kernel &k, Reading &r, OrtKernelContext *context,
                         const Parallel &parallel) {
    const LatentAttention &f = k.latent_gradient.forward;
    Size b, d{f.dim}, l{f.latents};
    auto *x = static_cast<const float *>(r.input(context, 0, "x", PE_ORT_FLOAT, &b, &d, &l));
    auto *grad = static_cast<const float *>(r.input(context, 8, "grad", PE_ORT_FLOAT, &b, &d, &l));
    const int64_t shape[] = {int64_t(b.value), int64_t(d.value), int64_t(l.value)};
    float *y = r.output(context, shape, 3);
    if (y)
        r.finished(
            k.kernels->latent_attention_gradient(k.latent_gradient, x, grad, y, b.value, parallel));
}

void run_feed_forward_gradient(Kernel &k, Reading &r, OrtKernelContext *context,
                               const Parallel &parallel) {
    Size b, d{k.feed_forward_gradient.forward.dim}, l;
    auto *x = static_cast<const float *>(r.input(context, 0, "x", PE_ORT_FLOAT, &b, &d, &l));
    auto *grad = static_cast<const float *>(r.input(context, 9, "grad", PE_ORT_FLOAT, &b, &d, &l));
    const int64_t shape[] = {int64_t(b.value), int64_t(d.value), int64_t(l.value)};
    float *y = r.output(context, shape, 3);
    if (y)
        r.finished(k.kernels->feed_forward_gradient(k.feed_forward_gradient, x, grad, y, b.value,
                                                    l.value, parallel));
}

void run_query(Kernel &k, Reading &r, OrtKernelContext *context, const Parallel &parallel) {
    const QueryAttention &op = k.query;
    Size b, d{op.dim}, l{op.latents}, q;
    auto *x = static_cast<const float *>(r.input(context, 0, "x", PE_ORT_FLOAT, &b, &d, &l));
    auto *session = static_cast<const float *>(r.input(context, 1, "session", PE_ORT_FLOAT, &d));
    auto *time =
        static_cast<const float *>(r.input(context, 2, "query_time", PE_ORT_FLOAT, &b, &q));
    const int64_t shape[] = {int64_t(b.value * q.value), int64_t(op.heads * op.head)};
    float *y = r.output(context, shape, 2);
    if (y)
        r.finished(k.kernels->query_attention(op, x, session, time, b.value, q.value, y, parallel));
}

} // namespace
} // namespace poyo

#endif
