#ifndef PE_OPERATORS_H
#define PE_OPERATORS_H

#include "custom_op.h"
#include "kernels.h"

namespace poyo {

// The instruction set that kernels are made for from now on.
const Kernels *chosen();

OrtStatus *add_operators(const pe_ort_api *api, OrtCustomOpDomain *domain);

} // namespace poyo

#endif
