// What the shared object shows to ONNX Runtime and to us.
#include <atomic>

#include "operators.h"

namespace {
std::atomic<const poyo::Kernels *> wanted{nullptr};
std::atomic<OrtCustomOpDomain *> domain{nullptr};
} // namespace

namespace poyo {

const Kernels *chosen() {
    const Kernels *one = wanted.load();
    return one ? one : choose(nullptr);
}

} // namespace poyo

#define SHOWN extern "C" __attribute__((visibility("default")))

// Version of the operators.
SHOWN const char *poyo_edge_kernels_version() { return PE_KERNELS_VERSION; }

// The instruction set in use; kernels that are made later use the one of that name, or with NULL
// the best. NULL, and nothing changed, where the processor lacks it.
SHOWN const char *poyo_edge_kernels_choose(const char *name) {
    const poyo::Kernels *one = poyo::choose(name);
    if (!one) return nullptr;
    wanted.store(one);
    return one->name;
}

SHOWN OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const pe_ort_base *base) {
    const pe_ort_api *api = base->GetApi(PE_ORT_API);
    if (!api)
        return base->GetApi(1)->CreateStatus(PE_ORT_FAIL,
                                             "poyo_edge: expected ONNX Runtime 1.19 or newer");
    if (!domain.load()) { // for good: sessions need it for as long as they live
        OrtCustomOpDomain *made = nullptr, *none = nullptr;
        OrtStatus *status = api->CreateCustomOpDomain("poyo_edge", &made);
        if (!status) status = poyo::add_operators(api, made);
        if (status) return status;
        if (!domain.compare_exchange_strong(none, made)) api->ReleaseCustomOpDomain(made);
    }
    return api->AddCustomOpDomain(options, domain.load());
}
