#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/dot.h>

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
  at::parallel_for(0, c.n, 1 << 15,
                   [&](std::int64_t begin, std::int64_t end) { adamw_portable(c.w, c.moments, c.g, begin, end, c.scalars, c.settings); });
}

// Blocks in fp32, their sum in fp64: one fp32 dot over all elements is 3e-5 too small at 1e7 of them, 1e-3 at 1e8.
bool takes_sumsq(const Attrs&, const Types& in) { return in[0]->dtype == DType::fp32 || in[0]->dtype == DType::bf16; }
void sumsq_launch(const Args& a) {
  constexpr std::int64_t kBlock = 1 << 16;
  const at::Tensor x = a.in[0].view({-1});
  double sum = 0;
  for (std::int64_t begin = 0; begin < x.numel(); begin += kBlock) {
    const at::Tensor block = x.slice(0, begin, begin + kBlock).to(at::kFloat);
    sum += at::dot(block, block).item<double>();
  }
  a.out[0].fill_(sum);
}

}    // namespace

std::vector<KernelRow> cpu_rows() {
  return {
      {.op = "adamw", .device = DeviceKind::cpu, .name = "sheaf", .takes = takes_adamw, .launch = adamw_launch},
      {.op = "adamw_split", .device = DeviceKind::cpu, .name = "sheaf", .takes = takes_adamw_split, .launch = adamw_launch},
      {.op = "attention", .device = DeviceKind::cpu, .name = "flash_cpu", .takes = cpu_attention_takes, .launch = cpu_attention},
      {.op = "attention_grad",
       .device = DeviceKind::cpu,
       .name = "flash_cpu",
       .takes = cpu_attention_grad_takes,
       .launch = cpu_attention_grad},
      {.op = "sumsq", .device = DeviceKind::cpu, .name = "blocks", .takes = takes_sumsq, .launch = sumsq_launch},
  };
}

#ifndef SHEAF_CUDA
std::vector<KernelRow> cuda_rows() { return {}; }
#endif

}    // namespace sheaf
