#include "runtime/kernels/rows.h"

namespace sheaf {

std::vector<KernelRow> cpu_rows() { return {}; }

#ifndef SHEAF_CUDA
std::vector<KernelRow> cuda_rows() { return {}; }
#endif

}    // namespace sheaf
