// softmax_sums, logits_grad, and the rows for a vocabulary that is sharded, on the GPU against the ops' portable kernels in fp64.
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randint.h>

#include <limits>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Logits {
  std::int64_t rows, v;
};
std::ostream& operator<<(std::ostream& out, const Logits& l) { return out << l.rows << "_of_" << l.v; }

class CrossEntropy : public Gpu, public ::testing::WithParamInterface<Logits> {};

// One in ten is ignored; some belong to other ranks if v is a piece of the vocabulary.
at::Tensor labels_of(std::int64_t rows, std::int64_t vocabulary, at::ScalarType dtype) {
  at::Tensor labels = at::randint(0, std::max<std::int64_t>(vocabulary, 1), {rows}, at::TensorOptions().dtype(dtype));
  for (std::int64_t row = 3; row < rows; row += 10) labels[row] = -100;
  return labels;
}

at::Tensor wide(const at::Tensor& t) { return t.to(at::kDouble); }

struct Exact {
  at::Tensor m, s, p;
};
Exact exact_sums(const at::Tensor& x, const at::Tensor& labels) {
  const at::Tensor m = run_portable("row_max", {wide(x)}, {})[0];
  return {m, run_portable("sum_exp", {wide(x), m}, {})[0], run_portable("pick", {wide(x), labels}, {})[0]};
}

// fp32 of sums of up to 151,936 terms, and the hardware's exponential: |x| 2^-24.
TEST_P(CrossEntropy, sums_equal_the_parts_in_fp64) {
  const auto [rows, v] = GetParam();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const at::ScalarType id_type : {at::kInt, at::kLong}) {
      const at::Tensor x = normal({rows, v}, dtype, 1).mul(4), labels = labels_of(rows, v, id_type);
      const auto [m, s, p] = exact_sums(x, labels);
      const auto got = run_row("softmax_sums", "sheaf", true, {x.to(kGpu), labels.to(kGpu)}, {});
      EXPECT_TRUE(wide(got[0].cpu()).equal(m));
      EXPECT_LT(relative_error(got[1], s), 3e-6);
      EXPECT_TRUE(wide(got[2].cpu()).equal(p));
    }
}

// bf16: one rounding, of 2^-8, leaves about a third of that in the 2-norm; fp16: an eighth of it.
TEST_P(CrossEntropy, gradient_equals_the_parts_in_fp64_also_in_place) {
  const auto [rows, v] = GetParam();
  const std::int64_t begin = v / 3;    // the rank has columns [begin, begin + v)
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const bool in_place : {false, true}) {
      const at::Tensor x = normal({rows, v}, dtype, 1).mul(4), labels = labels_of(rows, v + 2 * begin, at::kInt);
      const at::Tensor m = x.to(at::kFloat).amax({-1}), ds = normal({rows}, at::kFloat, 2), dp = normal({rows}, at::kFloat, 3);
      at::Tensor exact = at::empty_like(x, at::TensorOptions().dtype(at::kDouble));
      std::vector<at::Tensor> wide_out = {exact};
      const std::vector<at::Tensor> wide_in = {wide(x), wide(m), wide(ds), wide(dp), labels};
      op("softmax_grad").kernel({wide_in, wide_out, {}, begin, begin + v});

      const Attrs attrs = {{"dtype", Text(dtype == at::kFloat ? "fp32" : dtype == at::kHalf ? "fp16" : "bf16")}};
      const std::vector<at::Tensor> in = {x.to(kGpu), m.to(kGpu), ds.to(kGpu), dp.to(kGpu), labels.to(kGpu)};
      const DType own = dtype == at::kFloat ? DType::fp32 : dtype == at::kHalf ? DType::fp16 : DType::bf16;
      const Type types[] = {{own, {rows, v}, {}}, {DType::fp32, {rows}, {}}, {DType::i32, {rows}, {}}};
      const KernelRow* row =
          select_kernel(op("logits_grad"), DeviceKind::cuda, true, attrs, {&types[0], &types[1], &types[1], &types[1], &types[2]});
      ASSERT_TRUE(row);
      std::vector<at::Tensor> out = {in_place ? in[0] : at::empty_like(in[0])};
      row->launch({in, out, attrs, begin, begin + v});
      EXPECT_LT(relative_error(out[0], exact), dtype == at::kFloat ? 1e-5 : dtype == at::kHalf ? 5e-4 : 4e-3) << in_place;
    }
}

TEST_P(CrossEntropy, rows_of_a_sharded_vocabulary_equal_the_ops_in_fp64) {
  const auto [rows, v] = GetParam();
  const at::Tensor x = normal({rows, v}, at::kFloat, 1).mul(4), labels = labels_of(rows, v, at::kLong);
  const at::Tensor m = normal({rows}, at::kFloat, 4).abs().add(15), ds = normal({rows}, at::kFloat, 2), dp = normal({rows}, at::kFloat, 3);
  EXPECT_TRUE(run_row("row_max", "sheaf", true, {x.to(kGpu)}, {})[0].cpu().equal(x.amax({-1})));
  EXPECT_LT(relative_error(run_row("sum_exp", "sheaf", true, {x.to(kGpu), m.to(kGpu)}, {})[0],
                           run_portable("sum_exp", {wide(x), wide(m)}, {})[0]),
            3e-6);
  EXPECT_LT(
      relative_error(run_row("softmax_grad", "sheaf", true, {x.to(kGpu), m.to(kGpu), ds.to(kGpu), dp.to(kGpu), labels.to(kGpu)}, {})[0],
                     run_portable("softmax_grad", {wide(x), wide(m), wide(ds), wide(dp), labels}, {})[0]),
      1e-5);
}

INSTANTIATE_TEST_SUITE_P(Sizes, CrossEntropy,
                         ::testing::Values(Logits{1, 1}, Logits{5, 7}, Logits{33, 100}, Logits{200, 1000}, Logits{64, 8193},
                                           Logits{1, 32001}, Logits{3, 151936}, Logits{5, 50257}),
                         [](const auto& info) { return std::to_string(info.param.rows) + "_of_" + std::to_string(info.param.v); });

using CrossEntropyKernel = Gpu;

TEST_F(CrossEntropyKernel, masked_logits_count_for_nothing_and_a_nan_is_not_lost) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    at::Tensor x = normal({2, 20000}, dtype, 1);
    x.narrow(1, 0, 19000).fill_(-inf);    // whole threads see nothing else
    const at::Tensor labels = labels_of(2, 20000, at::kInt);
    const auto [m, s, p] = exact_sums(x, labels);
    const auto got = run_row("softmax_sums", "sheaf", true, {x.to(kGpu), labels.to(kGpu)}, {});
    EXPECT_TRUE(wide(got[0].cpu()).equal(m));
    EXPECT_LT(relative_error(got[1], s), 3e-6);
    x[1][7] = std::numeric_limits<float>::quiet_NaN();
    const at::Tensor with_nan = run_row("softmax_sums", "sheaf", true, {x.to(kGpu), labels.to(kGpu)}, {})[1].cpu();
    EXPECT_EQ(with_nan[0].item<float>(), got[1].cpu()[0].item<float>());
    EXPECT_TRUE(std::isnan(with_nan[1].item<float>()));
    if (dtype == at::kFloat) {
      EXPECT_TRUE(std::isnan(run_row("row_max", "sheaf", true, {x.to(kGpu)}, {})[0].cpu()[1].item<float>()));
    }
  }
}

// Of a rank that has nothing of a small vocabulary, and of no rows.
TEST_F(CrossEntropyKernel, pieces_may_be_empty) {
  const at::Tensor none = normal({2, 0}, at::kFloat, 1).to(kGpu), labels = labels_of(2, 5, at::kInt).to(kGpu),
                   m = normal({2}, at::kFloat, 2).to(kGpu);
  const auto sums = run_row("softmax_sums", "sheaf", true, {none, labels}, {});
  EXPECT_EQ(sums[0].cpu()[0].item<float>(), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(sums[1].cpu().norm().item<float>(), 0);
  EXPECT_EQ(sums[2].cpu().norm().item<float>(), 0);
  EXPECT_EQ(run_row("row_max", "sheaf", true, {none}, {})[0].cpu()[1].item<float>(), -std::numeric_limits<float>::infinity());
  EXPECT_EQ(run_row("sum_exp", "sheaf", true, {none, m}, {})[0].cpu().norm().item<float>(), 0);
  run_row("softmax_grad", "sheaf", true, {none, m, m, m, labels}, {});
  const at::Tensor no_rows = normal({0, 9}, at::kFloat, 1).to(kGpu);
  run_row("softmax_sums", "sheaf", true, {no_rows, labels.narrow(0, 0, 0)}, {});
}

// SHEAF_TIMES=1: a chunk of 2,048 tokens of the vocabulary of Qwen3, whole in bf16 and fp32, and half of it as a rank of two has it.
TEST_F(CrossEntropyKernel, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  constexpr std::int64_t rows = 2048;
  const at::Tensor m = normal({rows}, at::kFloat, 1).to(kGpu);
  const auto logits = [&](std::int64_t v, at::ScalarType dtype) {
    return at::empty({rows, v}, at::TensorOptions().dtype(dtype).device(kGpu)).fill_(0.5);
  };
  for (const auto& [v, dtype] :
       {std::pair<std::int64_t, at::ScalarType>{151936, at::kBFloat16}, {151935, at::kBFloat16}, {151936, at::kFloat}}) {
    const at::Tensor x = logits(v, dtype), labels = labels_of(rows, v, at::kInt).to(kGpu);
    print_time("softmax_sums", "sheaf", {x, labels}, {});
    print_time("logits_grad", "sheaf", {x, m, m, m, labels}, {{"dtype", Text(dtype == at::kFloat ? "fp32" : "bf16")}});
  }
  const at::Tensor half = logits(75968, at::kFloat), labels = labels_of(rows, 75968, at::kInt).to(kGpu);
  print_time("row_max", "sheaf", {half}, {});
  print_time("sum_exp", "sheaf", {half, m}, {});
  print_time("softmax_grad", "sheaf", {half, m, m, m, labels}, {});
}

}    // namespace
