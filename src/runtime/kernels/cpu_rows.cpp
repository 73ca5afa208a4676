#include <ATen/Parallel.h>

#include "runtime/kernels/adamw_args.h"
#include "runtime/kernels/rows.h"

namespace sheaf {
namespace {

// One pass over memory, where the composition of the op takes a dozen.
void adamw_launch(const Args& a) {
  const AdamwCall c(a);
  at::parallel_for(0, c.n, 1 << 15, [&](std::int64_t begin, std::int64_t end) {
    adamw_portable(c.w + begin, c.m + begin, c.v + begin, c.g + begin, end - begin, c.scalars, c.settings);
  });
}

}    // namespace

std::vector<KernelRow> cpu_rows() {
  return {{.op = "adamw", .device = DeviceKind::cpu, .name = "sheaf", .takes = takes_adamw, .launch = adamw_launch}};
}

#ifndef SHEAF_CUDA
std::vector<KernelRow> cuda_rows() { return {}; }
#endif

}    // namespace sheaf
