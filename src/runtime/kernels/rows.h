#pragma once
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

std::vector<KernelRow> cpu_rows();
std::vector<KernelRow> cuda_rows();    // empty in a build without CUDA

}    // namespace sheaf
