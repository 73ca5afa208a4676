#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/op_table.h"
#include "runtime/kernels/kernel_table.h"

using namespace sheaf;

namespace {

// n elements each of w, m, v, g, then the scalars.
std::vector<at::Tensor> adamw_inputs(std::int64_t n, double commit) {
  const auto number = [](double x) { return at::full({}, x, at::kFloat); };
  return {at::randn({n}, at::kFloat),
          at::randn({n}, at::kFloat),
          at::randn({n}, at::kFloat).abs(),
          at::randn({n}, at::kFloat),
          number(0.7),
          number(commit),
          number(1e-3),
          number(0.9),
          number(0.95),
          number(0.271),
          number(0.142625)};
}

struct TypesOf {
  std::vector<Type> storage;
  Types types;
  TypesOf(DType dtype, const std::vector<at::Tensor>& in) {
    for (const at::Tensor& t : in) storage.push_back({dtype, t.sizes().vec(), {}});
    for (const Type& t : storage) types.push_back(&t);
  }
};

Attrs adamw_attrs(bool decoupled) { return {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", Bool(decoupled)}}; }

TEST(AdamwRow, equals_the_op_in_place_and_not) {
  for (const std::int64_t n : {1, 7, 100003})
    for (const bool decoupled : {true, false})
      for (const double commit : {1.0, 0.0})
        for (const bool in_place : {true, false}) {
          std::vector<at::Tensor> in = adamw_inputs(n, commit), want, got;
          for (std::size_t i = 0; i < 3; ++i) want.push_back(at::full({n}, 9.0, at::kFloat));
          op("adamw").kernel({in, want, adamw_attrs(decoupled)});
          const TypesOf types(DType::fp32, in);
          const KernelRow* row = select_kernel(op("adamw"), DeviceKind::cpu, true, adamw_attrs(decoupled), types.types);
          ASSERT_TRUE(row);
          for (std::size_t i = 0; i < 3; ++i) got.push_back(in_place ? in[i] : at::full({n}, 9.0, at::kFloat));
          row->launch({in, got, adamw_attrs(decoupled)});
          // LibTorch takes square roots of arrays from MKL, which does not always give the nearest number.
          const double off = want[0].sub(got[0]).norm().item<double>() / want[0].norm().item<double>();
          EXPECT_LE(off, commit > 0 ? 1e-7 : 0) << "w, n " << n << ", decoupled " << decoupled << ", commit " << commit;
          for (std::size_t i = 1; i < 3; ++i)
            EXPECT_TRUE(at::equal(want[i], got[i]))
                << "output " << i << ", n " << n << ", decoupled " << decoupled << ", commit " << commit;
        }
}

TEST(AdamwRow, takes_a_gradient_in_bf16) {
  for (const bool decoupled : {true, false}) {
    std::vector<at::Tensor> in = adamw_inputs(1003, 1), wide = in, want, got;
    in[3] = in[3].to(at::kBFloat16), wide[3] = in[3].to(at::kFloat);
    TypesOf types(DType::fp32, in);
    types.storage[3].dtype = DType::bf16;
    const Attrs attrs = adamw_attrs(decoupled);
    const KernelRow* row = select_kernel(op("adamw"), DeviceKind::cpu, true, attrs, types.types);
    ASSERT_TRUE(row);
    std::vector<at::Tensor> of_op;
    for (auto* list : {&want, &got, &of_op})
      for (std::size_t i = 0; i < 3; ++i) list->push_back(at::full({1003}, 9.0, at::kFloat));
    row->launch({wide, want, attrs});
    row->launch({in, got, attrs});
    op("adamw").kernel({in, of_op, attrs});
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_TRUE(at::equal(want[i], got[i])) << "output " << i;
      // The square root, as above.
      EXPECT_LE(of_op[i].sub(got[i]).norm().item<double>(), 1e-7 * got[i].norm().item<double>()) << "output " << i;
    }
  }
}

TEST(AdamwRow, leaves_other_dtypes_to_the_op) {
  EXPECT_FALSE(select_kernel(op("adamw"), DeviceKind::cpu, true, adamw_attrs(true), TypesOf(DType::fp64, adamw_inputs(4, 1)).types));
}

// 1e7 squares near 1: a sum of all of them in fp32 is 3e-5 too small. Blocks of 2^16 in fp32 are within 1e-7 each.
TEST(SumsqRow, is_right_for_many_elements) {
  const std::vector<at::Tensor> in = {at::randn({10'000'001}, at::kFloat)};
  const TypesOf types(DType::fp32, in);
  const KernelRow* row = select_kernel(op("sumsq"), DeviceKind::cpu, true, {}, types.types);
  ASSERT_TRUE(row);
  std::vector<at::Tensor> out = {at::full({}, 0.0, at::kFloat)};
  row->launch(Args{in, out, Attrs{}});
  const double exact = in[0].to(at::kDouble).square().sum().item<double>();
  EXPECT_NEAR(out[0].item<double>(), exact, 3e-7 * exact);
}

TEST(SumsqRow, sums_bf16_in_fp32) {
  const std::vector<at::Tensor> in = {at::randn({1'000'001}, at::kBFloat16)};
  const KernelRow* row = select_kernel(op("sumsq"), DeviceKind::cpu, true, {}, TypesOf(DType::bf16, in).types);
  ASSERT_TRUE(row);
  std::vector<at::Tensor> out = {at::full({}, 0.0, at::kFloat)};
  row->launch(Args{in, out, Attrs{}});
  const double exact = in[0].to(at::kDouble).square().sum().item<double>();
  // Squares of bf16 numbers have few bits: the roundings of their sums lean to one side, 1.4e-6 in blocks of this size.
  EXPECT_NEAR(out[0].item<double>(), exact, 4e-6 * exact);
}

TEST(SelectKernel, never_takes_atomic_adds_where_determinism_is_asked_for) {
  const Type types[] = {{DType::fp64, {5, 3}, {}}, {DType::i64, {5}, {}}, {DType::fp64, {7, 3}, {}}};
  const Types in = {&types[0], &types[1], &types[2]};
  const Attrs attrs = {{"padding_id", Int(-1)}};
  EXPECT_THROW(select_kernel(op("embedding_grad"), DeviceKind::cuda, true, attrs, in), UserError);
  EXPECT_FALSE(select_kernel(op("embedding_grad"), DeviceKind::cuda, false, attrs, in));
  EXPECT_FALSE(select_kernel(op("embedding_grad"), DeviceKind::cpu, true, attrs, in));
}

}    // namespace
