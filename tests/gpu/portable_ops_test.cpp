// Every op of the list: its portable kernel on the GPU against the same on the CPU, in fp32, from the op's own cases.
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>

#include "gpu/gpu.h"
#include "ops/op_cases.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

class PortableOnGpu : public Gpu, public ::testing::WithParamInterface<Param> {};

TEST_P(PortableOnGpu, equals_the_cpu_to_rounding) {
  const OpDef& op = *GetParam().op;
  if (!op.kernel) return;    // storage only, or replaced by a pass
  if (op.meaning) return;    // sees rows: moe_test.cpp
  const sheaf::testing::Call call = make_call(op, *GetParam().c, Mode::fp64, 1);
  std::vector<Type> storage = call.in_types;
  Types types(call.in.size());
  for (std::size_t i = 0; i < call.present.size(); ++i) {
    if (storage[i].dtype == DType::fp64) storage[i].dtype = DType::fp32;
    types[call.present[i]] = &storage[i];
  }
  const auto run = [&](at::Device device) {
    std::vector<at::Tensor> in(call.in.size()), out;
    for (std::size_t i = 0; i < in.size(); ++i)
      if (call.in[i].defined())
        in[i] = call.in[i].to(types[i]->dtype == DType::fp32 ? at::kFloat : call.in[i].scalar_type()).clone().to(device);
    for (const Type& type : infer(op, call.attrs, types))
      out.push_back(at::empty(type.shape, at::TensorOptions().dtype(scalar_type(type.dtype)).device(device)));
    op.kernel({in, out, call.attrs});
    if (out.empty()) out.push_back(in[0]);    // set: the target
    return out;
  };
  const auto cpu = run(at::Device(at::kCPU)), gpu = run(kGpu);
  for (std::size_t i = 0; i < cpu.size(); ++i) {
    if (cpu[i].is_floating_point())
      EXPECT_LT(relative_error(gpu[i], cpu[i]), 3e-6) << "output " << i;
    else
      EXPECT_TRUE(at::equal(gpu[i].cpu(), cpu[i])) << "output " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Ops, PortableOnGpu, ::testing::ValuesIn(all_cases()), param_name);

}    // namespace
