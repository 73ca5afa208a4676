// What plans without a GPU say that calls take of one, against what they take.
#include "runtime/gpu_scratch.h"

#include <fmt/format.h>

#include "gpu/gpu.h"
#include "runtime/scratch_plan.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using GpuScratch = Gpu;

struct Heads {
  std::int64_t b, s, hk, r, d, e;
};

// dq, dk and dv lie side by side, as q, k and v do in a step; with documents only v and dv may. Off by a few MiB at most, or by 2 %.
TEST_F(GpuScratch, of_attention_grad_is_as_planned) {
  const Heads cases[] = {{4, 4096, 8, 2, 128, 128},  {1, 1024, 4, 8, 128, 128}, {2, 8192, 2, 4, 128, 128},
                         {4, 2048, 16, 1, 128, 128}, {4, 4096, 8, 8, 64, 64},   {2, 1024, 12, 1, 64, 64},
                         {2, 4096, 16, 1, 192, 128}, {1, 512, 4, 2, 128, 128},  {1, 16384, 4, 4, 128, 128}};
  for (const auto& [b, s, hk, r, d, e] : cases)
    for (const bool documents : {false, true})
      for (const bool deterministic : {false, true}) {
        if (documents && d != e) continue;
        const Type q{DType::bf16, {b, s, hk, r, d}, {}}, k{DType::bf16, {b, s, hk, d}, {}}, v{DType::bf16, {b, s, hk, e}, {}},
            o{DType::bf16, {b, s, hk, r, e}, {}}, lse{DType::fp32, {b, s, hk, r}, {}}, ends{DType::i32, {b, s / 512}, {}};
        const std::int64_t pitch = 2 * hk * (r * d + d + e);
        const Node node{&op("attention_grad"), {}, {}, {{"causal", true}, {"scale", 0.1}, {"window", Int(0)}}, {}};
        const std::int64_t of_qk = documents ? 0 : pitch;
        const CallTensors in = {{&q, of_qk}, {&k, of_qk}, {&v, pitch}, {&o}, {&lse}, {&o}, documents ? CallTensor{&ends} : CallTensor{},
                                {}},
                          out = {{&q, of_qk}, {&k, of_qk}, {&v, pitch}};
        Types types, results = {&q, &k, &v};
        for (const CallTensor& tensor : in) types.push_back(tensor.type);
        const KernelRow* row = kernel_of_call(node, types, DeviceKind::cuda, deterministic);
        if (documents && deterministic && !row->name.starts_with("cudnn")) continue;    // it would take more than 16 GiB
        ASSERT_TRUE(row && row->name.starts_with("cudnn"));
        const auto measured = static_cast<double>(scratch_of_call(node, row, in, out, DeviceKind::cuda, 0));
        const auto planned = static_cast<double>(*gpu_scratch(node, types, results, deterministic));
        const std::string what = fmt::format("b {} s {} heads {}/{} of {}/{}{}{}", b, s, hk * r, hk, d, e, documents ? ", documents" : "",
                                             deterministic ? ", deterministic" : "");
        fmt::print("{:12.0f} planned, {:12.0f} measured  {}\n", planned, measured, what);
        EXPECT_NEAR(planned, measured, std::max(4e6, 0.02 * measured)) << what;
      }
}

}    // namespace
