// The four operators of the domain poyo_edge: inputs, weights, and one call of a kernel each.
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
    };
};

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

void run_spike(Kernel &k, Reading &r, OrtKernelContext *context, const Parallel &parallel) {
    const SpikeAttention &op = k.spike;
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
    const int64_t shape[] = {int64_t(b.value), int64_t(op.dim), int64_t(op.latents)};
    float *y = r.output(context, shape, 3);
    if (y) r.finished(k.kernels->spike_attention(op, s, y, parallel));
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

// What ONNX Runtime holds of one operator.
struct Operator {
    OrtCustomOp base;
    const char *name;
    size_t n_inputs;
    void (*create)(Kernel &, Reading &, const OrtKernelInfo *);
    void (*run)(Kernel &, Reading &, OrtKernelContext *, const Parallel &);
};

const Operator &as_operator(const OrtCustomOp *op) {
    return *reinterpret_cast<const Operator *>(op);
}

struct Created {
    Kernel kernel;
    const Operator *op;
};

void destroy(void *kernel) {
    auto *created = static_cast<Created *>(kernel);
    created->kernel.memory.release();
    std::free(created);
}

OrtStatus *create(const OrtCustomOp *op, const pe_ort_api *api, const OrtKernelInfo *info,
                  void **out) {
    const Operator &self = as_operator(op);
    Reading reading(api, self.name);
    auto *created = static_cast<Created *>(std::calloc(1, sizeof(Created)));
    if (!created) return api->CreateStatus(PE_ORT_FAIL, "expected memory, got none");
    created->op = &self;
    created->kernel.api = api;
    created->kernel.kernels = chosen();
    created->kernel.memory = Memory();
    self.create(created->kernel, reading, info);
    if (!created->kernel.memory.ok) reading.finished(NO_MEMORY);
    if (reading.status)
        destroy(created);
    else
        *out = created;
    return reading.status;
}

OrtStatus *run(void *kernel, OrtKernelContext *context) {
    auto *created = static_cast<Created *>(kernel);
    Reading reading(created->kernel.api, created->op->name);
    Threads threads = {created->kernel.api, context};
    created->op->run(created->kernel, reading, context, threads.parallel());
    return reading.status;
}

const char *name_of(const OrtCustomOp *op) { return as_operator(op).name; }
const char *cpu(const OrtCustomOp *) { return nullptr; }
size_t count_inputs(const OrtCustomOp *op) { return as_operator(op).n_inputs; }
size_t one(const OrtCustomOp *) { return 1; }
int is_float(const OrtCustomOp *, size_t) { return PE_ORT_FLOAT; }
int required(const OrtCustomOp *, size_t) { return 0; }
int version(const OrtCustomOp *) { return 1; }

int input_type(const OrtCustomOp *op, size_t index) {
    if (as_operator(op).create != create_spike) return PE_ORT_FLOAT;
    return index == 0 ? PE_ORT_INT32 : index == 2 ? PE_ORT_BOOL : PE_ORT_FLOAT;
}

Operator described(const char *name, size_t n_inputs, decltype(Operator::create) create_one,
                   decltype(Operator::run) run_one) {
    Operator op = {};
    op.base.version = PE_ORT_API;
    op.base.GetName = name_of;
    op.base.GetExecutionProviderType = cpu;
    op.base.GetInputType = input_type;
    op.base.GetInputTypeCount = count_inputs;
    op.base.GetOutputType = is_float;
    op.base.GetOutputTypeCount = one;
    op.base.KernelDestroy = destroy;
    op.base.GetInputCharacteristic = required;
    op.base.GetOutputCharacteristic = required;
    op.base.GetInputMemoryType = required;
    op.base.CreateKernelV2 = create;
    op.base.KernelComputeV2 = run;
    op.base.GetStartVersion = version;
    op.base.GetEndVersion = [](const OrtCustomOp *) { return 1 << 30; };
    op.name = name;
    op.n_inputs = n_inputs;
    op.create = create_one;
    op.run = run_one;
    return op;
}

const Operator operators[] = {
    described("LatentAttention", 8, create_latent, run_latent),
    described("FeedForward", 9, create_feed_forward, run_feed_forward),
    described("SpikeAttention", 13, create_spike, run_spike),
    described("QueryAttention", 12, create_query, run_query),
};

} // namespace

OrtStatus *add_operators(const pe_ort_api *api, OrtCustomOpDomain *domain) {
    for (const Operator &op : operators)
        if (OrtStatus *status = api->CustomOpDomain_Add(domain, &op.base)) return status;
    return nullptr;
}

} // namespace poyo
