#include "runtime/kernels/rows.h"

namespace sheaf {

bool cpu_attention_takes(const Attrs& attrs, const Types& in);
bool cpu_attention_grad_takes(const Attrs& attrs, const Types& in);
void cpu_attention(const Args& a);
void cpu_attention_grad(const Args& a);

std::vector<KernelRow> cpu_rows() {
  return {
      {"attention", DeviceKind::cpu, "flash_cpu", cpu_attention_takes, cpu_attention},
      {"attention_grad", DeviceKind::cpu, "flash_cpu", cpu_attention_grad_takes, cpu_attention_grad},
  };
}

#ifndef SHEAF_CUDA
std::vector<KernelRow> cuda_rows() { return {}; }
#endif

}    // namespace sheaf
