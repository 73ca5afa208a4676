// cuDNN's attention against the portable composition in fp64 on the CPU, on the same rounded inputs.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "gpu/gpu.h"
#include "runtime/kernels/cuda/attention_cudnn.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Shaped {
  std::string name;
  std::int64_t b, s, u, hk, r, d, window;
  bool causal = true;
  at::ScalarType dtype = at::kBFloat16;
  std::vector<std::vector<std::int32_t>> ends = {};    // of documents, per row
  std::optional<at::ScalarType> sinks = {};            // their dtype
  std::int64_t v_dim = 0;                              // 0: d

  std::int64_t e() const { return v_dim > 0 ? v_dim : d; }
  Attrs attrs() const { return {{"causal", Bool(causal)}, {"scale", 1 / std::sqrt(static_cast<double>(d))}, {"window", Int(window)}}; }
  std::vector<at::Tensor> inputs() const {
    return {normal({b, s, hk, r, d}, dtype, 1), normal({b, u, hk, d}, dtype, 2), normal({b, u, hk, e()}, dtype, 3)};
  }
  at::Tensor dy() const { return normal({b, s, hk, r, e()}, dtype, 4); }
  // All operands: behind these, ends and sinks on the same device; the latter wide if the others are.
  std::vector<at::Tensor> with_optional(std::vector<at::Tensor> tensors) const {
    at::Tensor of_documents, of_heads;
    if (!ends.empty()) {
      of_documents = at::empty({b, std::ssize(ends[0])}, at::kInt);
      for (std::int64_t row = 0; row < b; ++row) std::ranges::copy(ends[row], of_documents[row].data_ptr<std::int32_t>());
      of_documents = of_documents.to(tensors[0].device());
    }
    if (sinks) {
      of_heads = normal({hk, r}, *sinks, 5).mul(3).to(tensors[0].device());    // times 3: some heads are mostly sink, some hardly
      if (tensors[0].scalar_type() == at::kDouble) of_heads = of_heads.to(at::kDouble);
    }
    tensors.insert(tensors.end(), {of_documents, of_heads});
    return tensors;
  }
};
std::ostream& operator<<(std::ostream& out, const Shaped& c) { return out << c.name; }

std::vector<at::Tensor> moved(const std::vector<at::Tensor>& tensors, auto&& to) {
  std::vector<at::Tensor> out;
  for (const at::Tensor& t : tensors) out.push_back(t.defined() ? to(t) : t);
  return out;
}
at::Tensor on_gpu(const at::Tensor& t) { return t.to(kGpu); }
at::Tensor in_fp64(const at::Tensor& t) { return t.cpu().to(at::kDouble); }
std::vector<at::Tensor> joined(std::vector<at::Tensor> a, const std::vector<at::Tensor>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// bf16 has a unit of 2^-8, and a rounding leaves 1.6e-3 in the 2-norm. o has two, of the probabilities and its own, with
// sinks and documents one more; gradients have those of ds and of the result, and o's by way of delta.
constexpr double kBoundO = 6e-3, kBoundLse = 1e-4, kBoundGrad = 1.5e-2;
// dsinks is fp32, but of o as it was rounded: for each of a few heads one sum of numbers of either sign, so luck decides more.
constexpr double kBoundSinks = 3e-2;
// Of the same o and lse as the oracle's: rounding of fp32, in sums that cancel.
constexpr double kBoundSums = 1e-5;

class CudnnAttention : public Gpu, public ::testing::WithParamInterface<Shaped> {};

TEST_P(CudnnAttention, equals_the_composition_forward_and_backward) {
  const Shaped& c = GetParam();
  const Attrs attrs = c.attrs();
  const auto in = c.inputs();
  const at::Tensor dy = c.dy();

  const auto exact = run_portable("attention", c.with_optional(moved(in, in_fp64)), attrs);
  const auto got = run_row("attention", "cudnn", true, c.with_optional(moved(in, on_gpu)), attrs);
  EXPECT_LT(relative_error(got[0], exact[0]), kBoundO) << "o";
  EXPECT_LT(relative_error(got[1], exact[1]), kBoundLse) << "lse";

  const auto exact_grad =
      run_portable("attention_grad", c.with_optional(joined(moved(in, in_fp64), {exact[0], exact[1], in_fp64(dy)})), attrs);
  const auto operands = joined(in, {got[0], got[1], dy});
  at::Tensor dsinks;    // of o and lse as the row left them
  if (c.sinks) dsinks = run_portable("attention_grad", c.with_optional(moved(operands, in_fp64)), attrs)[3];
  for (const bool deterministic : {false, true}) {
    const auto grad = run_row("attention_grad", deterministic ? "cudnn deterministic" : "cudnn", deterministic,
                              c.with_optional(moved(operands, on_gpu)), attrs);
    ASSERT_EQ(grad.size(), c.sinks ? 4 : 3);
    const char* names[] = {"dq", "dk", "dv"};
    for (std::size_t i = 0; i < 3; ++i)
      // A window of 1 leaves one term in each softmax: dq and dk are exactly 0, and what cuDNN yields is rounding of dv's size.
      if (c.window == 1 && i < 2)
        EXPECT_LT(in_fp64(grad[i]).norm().item<double>(), 1e-2 * in_fp64(grad[2]).norm().item<double>()) << names[i];
      else
        EXPECT_LT(relative_error(grad[i], exact_grad[i]), kBoundGrad) << names[i] << (deterministic ? ", deterministic" : "");
    if (!c.sinks) continue;
    EXPECT_EQ(grad[3].scalar_type(), at::kFloat);
    EXPECT_LT(relative_error(grad[3], exact_grad[3]), kBoundSinks) << "dsinks";
    EXPECT_LT(relative_error(grad[3], dsinks), kBoundSums) << "dsinks of the same o and lse";
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CudnnAttention,
                         ::testing::Values(Shaped{"one_head_each", 2, 128, 128, 2, 1, 64, 0},
                                           Shaped{"grouped_2", 1, 1000, 1000, 2, 2, 128, 0}, Shaped{"grouped_8", 2, 256, 256, 1, 8, 128, 0},
                                           Shaped{"head_dim_64_uneven", 2, 1000, 1000, 1, 2, 64, 0},
                                           Shaped{"head_dim_40", 2, 128, 128, 2, 2, 40, 0}, Shaped{"window_1", 1, 128, 128, 2, 2, 64, 1},
                                           Shaped{"window_2", 1, 128, 128, 2, 2, 64, 2}, Shaped{"window_100", 1, 1000, 1000, 2, 2, 64, 100},
                                           Shaped{"window_longer_than_the_row", 1, 128, 128, 2, 2, 64, 4096},
                                           Shaped{"not_causal", 2, 200, 200, 2, 2, 64, 0, false},
                                           Shaped{"cross", 2, 128, 200, 2, 2, 64, 0, false},
                                           Shaped{"fp16", 1, 256, 256, 2, 4, 128, 0, true, at::kHalf},
                                           Shaped{.name = "documents",
                                                  .b = 2,
                                                  .s = 512,
                                                  .u = 512,
                                                  .hk = 2,
                                                  .r = 2,
                                                  .d = 128,
                                                  .window = 0,
                                                  .ends = {{100, 101, 300, 512}, {512, 512, 512, 512}}},
                                           Shaped{.name = "documents_empty_and_a_rest",
                                                  .b = 2,
                                                  .s = 200,
                                                  .u = 200,
                                                  .hk = 1,
                                                  .r = 8,
                                                  .d = 64,
                                                  .window = 0,
                                                  .ends = {{0, 0, 7}, {1, 199, 199}}},
                                           Shaped{.name = "documents_in_a_window",
                                                  .b = 1,
                                                  .s = 1000,
                                                  .u = 1000,
                                                  .hk = 2,
                                                  .r = 2,
                                                  .d = 128,
                                                  .window = 100,
                                                  .ends = {{50, 400, 1000}}}),
                         [](const auto& info) { return info.param.name; });

std::vector<Shaped> with_sinks() {
  std::vector<Shaped> all;
  for (const std::int64_t d : {64, 128}) {
    const std::string of = fmt::format("_head_dim_{}", d);
    all.push_back({.name = "dense" + of, .b = 2, .s = 512, .u = 512, .hk = 2, .r = 4, .d = d, .window = 0});
    all.push_back({.name = "window" + of, .b = 1, .s = 1000, .u = 1000, .hk = 2, .r = 4, .d = d, .window = 100});
    all.push_back({.name = "documents" + of, .b = 2, .s = 512, .u = 512, .hk = 2, .r = 4, .d = d, .window = 0});
    all.back().ends = {{0, 1, 300, 512}, {100, 101, 101, 101}};    // empty ones among them, and a rest
    all.push_back({.name = "documents_in_a_window" + of, .b = 1, .s = 1000, .u = 1000, .hk = 2, .r = 4, .d = d, .window = 100});
    all.back().ends = {{50, 400, 1000}};
  }
  for (Shaped& c : all) c.sinks = c.dtype;
  all.push_back({.name = "in_fp32", .b = 1, .s = 256, .u = 256, .hk = 2, .r = 4, .d = 64, .window = 0, .sinks = at::kFloat});
  all.push_back({.name = "one_head", .b = 2, .s = 1000, .u = 1000, .hk = 1, .r = 1, .d = 128, .window = 0, .sinks = at::kBFloat16});
  all.push_back({.name = "forty_heads", .b = 1, .s = 128, .u = 128, .hk = 8, .r = 5, .d = 40, .window = 0, .sinks = at::kBFloat16});
  all.push_back(
      {.name = "fp16", .b = 1, .s = 256, .u = 256, .hk = 2, .r = 4, .d = 128, .window = 0, .dtype = at::kHalf, .sinks = at::kHalf});
  return all;
}
INSTANTIATE_TEST_SUITE_P(Sinks, CudnnAttention, ::testing::ValuesIn(with_sinks()), [](const auto& info) { return info.param.name; });

using CudnnAttentionRows = Gpu;

TEST_F(CudnnAttentionRows, deterministic_row_gives_the_same_bits) {
  // The default row differs from run to run here, but for dsinks.
  const Shaped c{.name = "", .b = 2, .s = 2048, .u = 2048, .hk = 4, .r = 8, .d = 128, .window = 0, .sinks = at::kBFloat16};
  const auto in = moved(c.inputs(), on_gpu);
  const auto forward = run_row("attention", "cudnn", true, c.with_optional(in), c.attrs());
  const auto operands = c.with_optional(joined(in, {forward[0], forward[1], on_gpu(c.dy())}));
  const auto first = run_row("attention_grad", "cudnn deterministic", true, operands, c.attrs());
  for (int repeat = 0; repeat < 3; ++repeat) {
    const auto forward_again = run_row("attention", "cudnn", true, c.with_optional(in), c.attrs());
    for (std::size_t i = 0; i < 2; ++i) EXPECT_TRUE(at::equal(forward[i], forward_again[i])) << i;
    const auto again = run_row("attention_grad", "cudnn deterministic", true, operands, c.attrs());
    for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(at::equal(first[i], again[i])) << i;
    EXPECT_TRUE(at::equal(first[3], run_row("attention_grad", "cudnn", false, operands, c.attrs())[3]));
  }
}

// The one case of head dims above 128. Skipped with cuDNN's words where it refuses.
TEST_F(CudnnAttentionRows, head_dims_of_mla) {
  std::string refused;
  for (const bool documents : {false, true}) {
    Shaped c{.name = "", .b = 1, .s = 4096, .u = 4096, .hk = 16, .r = 1, .d = 192, .window = 0, .v_dim = 128};
    if (documents) c.ends = {{1000, 4000}};
    const Attrs attrs = c.attrs();
    const auto in = moved(c.inputs(), on_gpu);
    const at::Tensor dy = on_gpu(c.dy());
    const auto wide = [](const at::Tensor& t) { return t.to(at::kDouble); };
    const auto exact = run_portable("attention", c.with_optional(moved(in, wide)), attrs);
    const auto exact_grad = run_portable("attention_grad", c.with_optional(joined(moved(in, wide), {exact[0], exact[1], wide(dy)})), attrs);
    const at::Tensor o = exact[0].to(c.dtype), lse = exact[1].to(at::kFloat);

    const auto attempt = [&](void (*launch)(const Args&), const std::vector<at::Tensor>& operands, const std::vector<at::Tensor>& like,
                             const std::vector<at::Tensor>& oracle, const std::vector<double>& bounds) {
      std::vector<at::Tensor> out;
      for (const at::Tensor& t : like) out.push_back(at::empty_like(t));
      const std::vector<at::Tensor> all = c.with_optional(operands);
      try {
        launch({all, out, attrs});
      } catch (const UserError& error) {
        refused += fmt::format("{}\n", error.what());
        return;
      }
      for (std::size_t i = 0; i < out.size(); ++i) EXPECT_LT(relative_error(out[i], oracle[i]), bounds[i]) << documents << i;
      if (times_wanted())
        fmt::print("{:8.3f} ms  head dims 192 and 128, {} outputs, documents {}\n", milliseconds({.launch = launch}, all, out, attrs),
                   out.size(), documents);
    };
    attempt(cudnn_attention, in, {o, lse}, exact, {kBoundO, kBoundLse});
    for (const auto launch : {cudnn_attention_grad, cudnn_attention_grad_deterministic})
      attempt(launch, joined(in, {o, lse, dy}), in, exact_grad, {kBoundGrad, kBoundGrad, kBoundGrad});
  }
  if (!refused.empty()) GTEST_SKIP() << refused;
}

// SHEAF_TIMES=1: what sinks cost at 16,384 tokens. The heads of Qwen3-1.7B; those of gpt-oss-20b, where every other layer has a window.
TEST_F(CudnnAttentionRows, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  struct Kind {
    const char* name;
    std::int64_t hk, r, d, window = 0, document = 4096;    // tokens of each
  };
  for (const Kind& kind : {Kind{"16 heads of 128, 8 of k and v", 8, 2, 128}, Kind{"the same, window 1024", 8, 2, 128, 1024},
                           Kind{"the same, window 128", 8, 2, 128, 128}, Kind{"the same, documents of 1024", 8, 2, 128, 0, 1024},
                           Kind{"the same, documents of 256", 8, 2, 128, 0, 256}, Kind{"64 heads of 64, 8 of k and v", 8, 8, 64},
                           Kind{"the same, window 128", 8, 8, 64, 128}}) {
    Shaped c{.name = kind.name, .b = 4, .s = 4096, .u = 4096, .hk = kind.hk, .r = kind.r, .d = kind.d, .window = kind.window};
    std::vector<std::int32_t> ends;
    for (std::int64_t end = kind.document; end < c.s; end += kind.document) ends.push_back(static_cast<std::int32_t>(end));
    if (!ends.empty()) c.ends.assign(4, ends);
    const Attrs attrs = c.attrs();
    const auto some = [](const Shape& shape) { return at::randn(shape, at::TensorOptions().dtype(at::kBFloat16).device(kGpu)); };
    const std::vector<at::Tensor> in = {some({4, 4096, c.hk, c.r, c.d}), some({4, 4096, c.hk, c.d}), some({4, 4096, c.hk, c.d})};
    const at::Tensor dy = some({4, 4096, c.hk, c.r, c.d});
    double ms[3][2] = {};    // forward, backward, deterministic (0: it would take too much memory); without and with
    for (const bool sinks : {false, true}) {
      if (sinks) c.sinks = at::kBFloat16;
      const auto time = [&](const char* op_name, const char* row, bool deterministic, const std::vector<at::Tensor>& operands) {
        const std::vector<at::Tensor> all = c.with_optional(operands);
        std::vector<at::Tensor> out = run_row(op_name, row, deterministic, all, attrs);
        return std::pair(milliseconds(*cuda_row(op_name, deterministic, all, attrs), all, out, attrs), out);
      };
      const auto [forward, out] = time("attention", "cudnn", true, in);
      const auto operands = joined(in, {out[0], out[1], dy});
      ms[0][sinks] = forward;
      ms[1][sinks] = time("attention_grad", "cudnn", false, operands).first;
      const bool taken = cuda_row("attention_grad", true, c.with_optional(operands), attrs)->name == "cudnn deterministic";
      if (taken) ms[2][sinks] = time("attention_grad", "cudnn deterministic", true, operands).first;
    }
    const char* rows[] = {"attention", "attention_grad", "attention_grad, deterministic"};
    for (int i = 0; i < 3; ++i)
      fmt::print("{:8.3f} ms  with sinks {:8.3f} ms  {:.2f} times  {}, {}\n", ms[i][0], ms[i][1], ms[i][1] / ms[i][0], rows[i], kind.name);
  }
}

}    // namespace
