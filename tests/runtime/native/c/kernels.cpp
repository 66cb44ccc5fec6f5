// Our operators without ONNX Runtime: random shapes, spikes and masks against plain loops in
// double.
//
// kernels SEED COUNT [THREADS]: for each instruction set that there is, COUNT random cases of each
// operator. It stands in ONNX Runtime's place: tensors are its own, and tasks run on threads of its
// own. Gradients are compared with differences of those loops, in a quarter of the cases. One case
// in eight has a shape that does not fit and has to be refused. Ends with 1 when one is wrong.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../../../runtime/native/kernels/custom_op.h"
#include "kernels_plain.h"

struct OrtValue {
    std::vector<int64_t> shape;
    int type = PE_ORT_FLOAT;
    std::vector<float> floats;
    std::vector<int32_t> integers;
    std::vector<char> flags;
};
struct OrtStatus {
    std::string message;
};
struct OrtKernelInfo {
    std::vector<OrtValue> inputs;
    int64_t heads = 0;
};
struct OrtKernelContext {
    std::vector<OrtValue> *inputs;
    OrtValue outputs[3];
};

extern "C" {
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const pe_ort_base *base);
const char *poyo_edge_kernels_choose(const char *name);
}

namespace {

size_t n_threads = 1;
std::vector<const OrtCustomOp *> operators;

OrtStatus *status(int, const char *message) { return new OrtStatus{message}; }
void release(OrtStatus *one) { delete one; }
OrtStatus *shape_of(const OrtValue *value, OrtTensorTypeAndShapeInfo **out) {
    *out = reinterpret_cast<OrtTensorTypeAndShapeInfo *>(const_cast<OrtValue *>(value));
    return nullptr;
}
const OrtValue &as_value(const OrtTensorTypeAndShapeInfo *info) {
    return *reinterpret_cast<const OrtValue *>(info);
}
void nothing(OrtTensorTypeAndShapeInfo *) {}
OrtStatus *type_of(const OrtTensorTypeAndShapeInfo *info, int *out) {
    *out = as_value(info).type;
    return nullptr;
}
OrtStatus *axes_of(const OrtTensorTypeAndShapeInfo *info, size_t *out) {
    *out = as_value(info).shape.size();
    return nullptr;
}
OrtStatus *dims_of(const OrtTensorTypeAndShapeInfo *info, int64_t *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        out[i] = as_value(info).shape[i];
    return nullptr;
}
OrtStatus *data_of(OrtValue *value, void **out) {
    *out = value->type == PE_ORT_FLOAT   ? static_cast<void *>(value->floats.data())
           : value->type == PE_ORT_INT32 ? static_cast<void *>(value->integers.data())
                                         : static_cast<void *>(value->flags.data());
    return nullptr;
}
OrtStatus *constant(const OrtKernelInfo *info, size_t index, int *is, const OrtValue **out) {
    *is = 1;
    *out = &info->inputs[index];
    return nullptr;
}
OrtStatus *attribute(const OrtKernelInfo *info, const char *, int64_t *out) {
    *out = info->heads;
    return nullptr;
}
OrtStatus *input(const OrtKernelContext *context, size_t index, const OrtValue **out) {
    *out = &(*context->inputs)[index];
    return nullptr;
}
OrtStatus *output(OrtKernelContext *context, size_t index, const int64_t *shape, size_t n,
                  OrtValue **out) {
    size_t size = 1;
    for (size_t i = 0; i < n; i++)
        size *= static_cast<size_t>(shape[i]);
    context->outputs[index].shape.assign(shape, shape + n);
    context->outputs[index].floats.assign(size, NAN);
    *out = &context->outputs[index];
    return nullptr;
}
OrtStatus *in_parallel(const OrtKernelContext *, void (*task)(void *, size_t), size_t n, size_t,
                       void *data) {
    std::vector<std::thread> threads;
    for (size_t t = 1; t < n_threads; t++)
        threads.emplace_back([=] {
            for (size_t i = t; i < n; i += n_threads)
                task(data, i);
        });
    for (size_t i = 0; i < n; i += n_threads)
        task(data, i);
    for (auto &thread : threads)
        thread.join();
    return nullptr;
}
OrtStatus *new_domain(const char *, OrtCustomOpDomain **out) {
    *out = reinterpret_cast<OrtCustomOpDomain *>(&operators);
    return nullptr;
}
OrtStatus *add_operator(OrtCustomOpDomain *, const OrtCustomOp *op) {
    operators.push_back(op);
    return nullptr;
}
OrtStatus *add_domain(OrtSessionOptions *, OrtCustomOpDomain *) { return nullptr; }

pe_ort_api api;
const pe_ort_api *get_api(uint32_t) { return &api; }

void fill_api() {
    api.CreateStatus = status;
    api.ReleaseStatus = release;
    api.GetTensorTypeAndShape = shape_of;
    api.ReleaseTensorTypeAndShapeInfo = nothing;
    api.GetTensorElementType = type_of;
    api.GetDimensionsCount = axes_of;
    api.GetDimensions = dims_of;
    api.GetTensorMutableData = data_of;
    api.KernelInfoGetConstantInput_tensor = constant;
    api.KernelInfoGetAttribute_int64 = attribute;
    api.KernelContext_GetInput = input;
    api.KernelContext_GetOutput = output;
    api.KernelContext_ParallelFor = in_parallel;
    api.CreateCustomOpDomain = new_domain;
    api.CustomOpDomain_Add = add_operator;
    api.AddCustomOpDomain = add_domain;
}

struct Random {
    std::mt19937 engine;
    size_t size(size_t low, size_t high) {
        return std::uniform_int_distribution<size_t>(low, high)(engine);
    }
    OrtValue floats(std::vector<size_t> shape, float scale = 1.0f) {
        OrtValue value;
        size_t n = 1;
        for (size_t axis : shape) {
            value.shape.push_back(static_cast<int64_t>(axis));
            n *= axis;
        }
        std::normal_distribution<float> normal(0.0f, scale);
        for (size_t i = 0; i < n; i++)
            value.floats.push_back(normal(engine));
        return value;
    }
};

// Cosines and sines (L, P) of random times.
void add_rotation(Random &random, size_t latents, size_t pairs, std::vector<OrtValue> &to) {
    OrtValue cos = random.floats({latents, pairs}, 3.0f), sin = cos;
    for (size_t i = 0; i < cos.floats.size(); i++) {
        sin.floats[i] = std::sin(cos.floats[i]);
        cos.floats[i] = std::cos(cos.floats[i]);
    }
    to.push_back(cos);
    to.push_back(sin);
}

struct Case {
    std::string name;
    std::vector<OrtValue> inputs;
    plain::Sizes sizes;
    std::vector<double> expected; // of all outputs; NaN is not looked at
};

Case make(Random &random, size_t which) {
    plain::Sizes s = {};
    s.dim = 2 * random.size(4, 20); // of fewer numbers LayerNorm amplifies every rounding
    s.latents = random.size(1, 70);
    s.heads = random.size(1, 3);
    s.head = 2 * random.size(1, 24);
    s.pairs = random.size(1, s.head / 2);
    s.windows = random.size(1, 3);
    const size_t d = s.dim, l = s.latents, c = s.heads * s.head;
    const float spread = 1.0f / std::sqrt(static_cast<float>(d));
    auto weight = [&](std::vector<size_t> shape) { return random.floats(shape, spread); };
    std::vector<OrtValue> in;
    if (which != 2) in.push_back(random.floats({s.windows, d, l}));
    if (which == 0) {
        in.insert(in.end(),
                  {weight({d}), weight({d}), weight({d, 3 * c}), weight({c, d}), weight({d})});
        add_rotation(random, l, s.pairs, in);
        return {"LatentAttention", in, s, {}};
    }
    if (which == 1) {
        s.hidden = random.size(1, 50);
        in.insert(in.end(), {weight({d}), weight({d}), weight({d, s.hidden}), weight({s.hidden}),
                             random.floats({d, s.hidden}, 2.0f), weight({s.hidden}),
                             weight({s.hidden, d}), weight({d})});
        return {"FeedForward", in, s, {}};
    }
    if (which == 3) {
        s.n = random.size(0, 3);
        in.insert(in.end(),
                  {weight({d}), random.floats({s.windows, s.n}, 0.5f), weight({d}), weight({d}),
                   weight({d, c}), weight({d}), weight({d}), weight({d, 2 * c})});
        add_rotation(random, l, s.pairs, in);
        in.push_back(random.floats({s.pairs}, 100.0f));
        return {"QueryAttention", in, s, {}};
    }
    s.n = random.size(0, 3) ? random.size(0, 200) : 0;
    s.units = random.size(1, 9);
    OrtValue unit = random.floats({s.windows, s.n}), mask = unit;
    OrtValue time = random.floats({s.windows, s.n}, 0.5f);
    unit.type = PE_ORT_INT32;
    mask.type = PE_ORT_BOOL;
    for (size_t i = 0; i < s.windows * s.n; i++) {
        const int64_t units = static_cast<int64_t>(s.units);
        unit.integers.push_back(static_cast<int32_t>(
            std::uniform_int_distribution<int64_t>(-units, units - 1)(random.engine)));
        mask.flags.push_back(random.size(0, 4) != 0);
    }
    OrtValue query = random.floats({s.heads, l, s.head}, 0.7f);
    const size_t repeat = random.size(1, l); // queries whose still part repeats, sometimes
    for (size_t h = 0; h < s.heads && l % repeat == 0; h++)
        for (size_t i = repeat; i < l; i++)
            for (size_t k = 2 * s.pairs; k < s.head; k++)
                query.floats[(h * l + i) * s.head + k] =
                    query.floats[(h * l + i - repeat) * s.head + k];
    in.insert(in.end(),
              {unit, time, mask, random.floats({s.units, 2 * c}), random.floats({s.heads, l}),
               random.floats({s.heads, l, s.head}), query, random.floats({s.pairs}, 1000.0f)});
    add_rotation(random, l, s.pairs, in);
    in.insert(in.end(), {random.floats({l, d}), weight({c, d}), weight({d})});
    return {"SpikeAttention", in, s, {}};
}

std::vector<plain::Array> arrays(const Case &one) {
    std::vector<plain::Array> out;
    for (const OrtValue &value : one.inputs)
        out.push_back({value.floats.data(), value.integers.data(), value.flags.data()});
    return out;
}

const OrtCustomOp *find(const std::string &name) {
    for (const OrtCustomOp *op : operators)
        if (name == op->GetName(op)) return op;
    return nullptr;
}

// The plain answer times the gradients that it is given, where one number goes in as another one.
double weighed(Case forward, const OrtValue &grad, size_t input, size_t at, float by) {
    forward.inputs[input].floats[at] += by;
    const std::vector<double> y = plain::answer(forward.name, forward.sizes, arrays(forward));
    double sum = 0.0;
    for (size_t i = 0; i < y.size(); i++)
        sum += y[i] * grad.floats[i];
    return sum;
}

// Gradients of a case: the plain loops' differences (of fourth order) at some places of each
// input that there is a gradient of.
Case gradient_of(Random &random, size_t which) {
    constexpr float small = 1.0f / 256;
    Case one = make(random, which);
    const plain::Sizes &s = one.sizes;
    const OrtValue grad = random.floats({s.windows, s.dim, s.latents});
    std::vector<size_t> inputs = {0};
    if (which == 2) inputs = {3, 4, 5};
    for (size_t input : inputs)
        for (float &x : one.inputs[input].floats)
            x = std::round(x * 1024) / 1024; // so that steps are exact
    std::vector<double> expected;
    for (size_t input : inputs) {
        const size_t first = expected.size(), n = one.inputs[input].floats.size();
        expected.resize(first + n, NAN);
        for (int tries = 0; tries < 3; tries++) {
            const size_t at = random.size(0, n - 1);
            auto f = [&](float by) { return weighed(one, grad, input, at, by); };
            expected[first + at] = (8 * (f(small) - f(-small)) - f(2 * small) + f(-2 * small)) /
                                   (12 * static_cast<double>(small));
        }
    }
    one.name += "Gradient";
    one.inputs.push_back(grad);
    one.expected = expected;
    return one;
}

// The largest error over the largest value, or -1 where it was refused.
double run(const Case &one) {
    const OrtCustomOp *op = find(one.name);
    OrtKernelInfo info = {one.inputs, static_cast<int64_t>(one.sizes.heads)};
    void *kernel = nullptr;
    OrtStatus *refused = op->CreateKernelV2(op, &api, &info, &kernel);
    std::vector<OrtValue> inputs = one.inputs;
    OrtKernelContext context = {&inputs, {}};
    std::vector<float> found;
    info.inputs.clear(); // weights are not read again
    if (!refused) {
        refused = op->KernelComputeV2(kernel, &context);
        op->KernelDestroy(kernel);
    }
    if (refused) {
        delete refused;
        return -1.0;
    }
    for (const OrtValue &output : context.outputs)
        found.insert(found.end(), output.floats.begin(), output.floats.end());
    double worst = 0.0, largest = 1.0;
    if (found.size() != one.expected.size()) return NAN;
    for (size_t i = 0; i < one.expected.size(); i++) {
        if (!std::isfinite(found[i])) return NAN;
        largest = std::max(largest, std::fabs(static_cast<double>(found[i])));
        const double error = std::fabs(found[i] - one.expected[i]);
        if (!std::isnan(one.expected[i]) && !(error <= worst)) worst = error;
    }
    return worst / largest;
}

// A case whose shapes do not fit: an axis is one shorter than the others say.
bool refuses(Random &random, Case one) {
    for (int tries = 0; tries < 20; tries++) {
        OrtValue &value = one.inputs[random.size(0, one.inputs.size() - 1)];
        int64_t &axis = value.shape[random.size(0, value.shape.size() - 1)];
        if (axis < 2) continue;
        axis--;
        const double found = run(one);
        axis++;
        if (found == -1.0) return true; // others still fit, as one window less, or one unit
    }
    return false;
}

} // namespace

int main(int argc, char **argv) {
    const unsigned seed = argc > 1 ? static_cast<unsigned>(std::atoi(argv[1])) : 0;
    const int count = argc > 2 ? std::atoi(argv[2]) : 100;
    n_threads = argc > 3 ? static_cast<size_t>(std::atoi(argv[3])) : 1;
    fill_api();
    const pe_ort_base base = {get_api, nullptr};
    if (RegisterCustomOps(nullptr, &base) || operators.size() != 7) return 1;
    bool failed = false;
    for (const char *name : {"sse2", "avx2", "avx512", "neon"}) {
        if (!poyo_edge_kernels_choose(name)) continue;
        for (size_t which = 0; which < 7; which++) {
            Random random = {std::mt19937(seed)};
            double worst = 0.0;
            int n_refused = 0;
            std::string operator_;
            for (int i = 0; i < count; i++) {
                const bool gradient = which > 3; // differences take long, so there are fewer
                if (gradient && i % 4 != 3) continue;
                Case one = gradient ? gradient_of(random, which - 4) : make(random, which);
                operator_ = one.name;
                if (!gradient) one.expected = plain::answer(one.name, one.sizes, arrays(one));
                const double error = run(one);
                if (!(error >= 0.0 && error <= 4e-6)) {
                    std::printf("%s %s case %d: error %.1e; D %zu L %zu H %zu K %zu P %zu h %zu B "
                                "%zu n %zu U %zu\n",
                                name, one.name.c_str(), i, error, one.sizes.dim, one.sizes.latents,
                                one.sizes.heads, one.sizes.head, one.sizes.pairs, one.sizes.hidden,
                                one.sizes.windows, one.sizes.n, one.sizes.units);
                    failed = true;
                }
                worst = std::max(worst, error);
                if (i % 8 == 7) n_refused += refuses(random, one);
            }
            if (count >= 8 && n_refused == 0) failed = true;
            std::printf("%s %s: %d cases, worst error %.1e, %d refused\n", name, operator_.c_str(),
                        which > 3 ? count / 4 : count, worst, n_refused);
        }
    }
    return failed;
}
