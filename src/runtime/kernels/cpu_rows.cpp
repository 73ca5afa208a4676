#include <ATen/Parallel.h>

#include "runtime/kernels/adamw_args.h"
#include "runtime/kernels/rows.h"

namespace sheaf {

// cpu_attention.cpp
bool cpu_attention_takes(const Attrs& attrs, const Types& in);
bool cpu_attention_grad_takes(const Attrs& attrs, const Types& in);
void cpu_attention(const Args& a);
void cpu_attention_grad(const Args& a);

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
  return {
      {.op = "adamw", .device = DeviceKind::cpu, .name = "sheaf", .takes = takes_adamw, .launch = adamw_launch},
      {.op = "attention", .device = DeviceKind::cpu, .name = "flash_cpu", .takes = cpu_attention_takes, .launch = cpu_attention},
      {.op = "attention_grad",
       .device = DeviceKind::cpu,
       .name = "flash_cpu",
       .takes = cpu_attention_grad_takes,
       .launch = cpu_attention_grad},
  };
}

#ifndef SHEAF_CUDA
std::vector<KernelRow> cuda_rows() { return {}; }
#endif

}    // namespace sheaf
