// The operators of the domain poyo_edge, as ONNX Runtime asks for them.
#include "running.h"

namespace poyo {

namespace {

// What ONNX Runtime holds of one operator.
struct Operator {
    OrtCustomOp base;
    const char *name;
    size_t n_inputs, n_outputs;
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
size_t count_outputs(const OrtCustomOp *op) { return as_operator(op).n_outputs; }
int is_float(const OrtCustomOp *, size_t) { return PE_ORT_FLOAT; }
int required(const OrtCustomOp *, size_t) { return 0; }
int version(const OrtCustomOp *) { return 1; }

int input_type(const OrtCustomOp *op, size_t index) {
    const auto create_one = as_operator(op).create;
    if (create_one != create_spike && create_one != create_spike_gradient) return PE_ORT_FLOAT;
    return index == 0 ? PE_ORT_INT32 : index == 2 ? PE_ORT_BOOL : PE_ORT_FLOAT;
}

Operator described(const char *name, size_t n_inputs, decltype(Operator::create) create_one,
                   decltype(Operator::run) run_one, size_t n_outputs = 1) {
    Operator op = {};
    op.base.version = PE_ORT_API;
    op.base.GetName = name_of;
    op.base.GetExecutionProviderType = cpu;
    op.base.GetInputType = input_type;
    op.base.GetInputTypeCount = count_inputs;
    op.base.GetOutputType = is_float;
    op.base.GetOutputTypeCount = count_outputs;
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
    op.n_outputs = n_outputs;
    op.create = create_one;
    op.run = run_one;
    return op;
}

const Operator operators[] = {
    described("LatentAttention", 8, create_latent, run_latent),
    described("FeedForward", 9, create_feed_forward, run_feed_forward),
    described("SpikeAttention", 13, create_spike, run_spike),
    described("QueryAttention", 12, create_query, run_query),
    described("LatentAttentionGradient", 9, create_latent_gradient, run_latent_gradient),
    described("FeedForwardGradient", 10, create_feed_forward_gradient, run_feed_forward_gradient),
    described("SpikeAttentionGradient", 14, create_spike_gradient, run_spike_gradient, 3),
};

} // namespace

OrtStatus *add_operators(const pe_ort_api *api, OrtCustomOpDomain *domain) {
    for (const Operator &op : operators)
        if (OrtStatus *status = api->CustomOpDomain_Add(domain, &op.base)) return status;
    return nullptr;
}

} // namespace poyo
