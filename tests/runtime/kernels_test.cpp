#include <ATen/ops/empty_like.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/dtype.h"
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

TEST(AdamwRow, takes_moments_in_bf16) {
  for (const bool decoupled : {true, false})
    for (const double commit : {1.0, 0.0}) {
      std::vector<at::Tensor> in = adamw_inputs(1003, commit), wide = in, want, got, of_op;
      TypesOf types(DType::fp32, in);
      for (const std::size_t i : {1, 2}) {
        in[i] = in[i].to(at::kBFloat16), wide[i] = in[i].to(at::kFloat);
        types.storage[i].dtype = DType::bf16;
      }
      const Attrs attrs = adamw_attrs(decoupled);
      const KernelRow* row = select_kernel(op("adamw"), DeviceKind::cpu, true, attrs, types.types);
      ASSERT_TRUE(row);
      for (std::size_t i = 0; i < 3; ++i) {
        want.push_back(at::empty_like(wide[i]));
        for (auto* list : {&got, &of_op}) list->push_back(at::empty_like(in[i]));
      }
      row->launch({wide, want, attrs});
      row->launch({in, got, attrs});
      op("adamw").kernel({in, of_op, attrs});
      EXPECT_TRUE(at::equal(want[0], got[0])) << "computed in fp32";
      for (const std::size_t i : {1, 2}) {
        EXPECT_TRUE(at::equal(want[i].to(at::kBFloat16), got[i])) << "output " << i << ", rounded to nearest";
        EXPECT_TRUE(at::equal(of_op[i], got[i])) << "output " << i;
      }
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

// The parts of fp32 numbers, as tensors.
std::pair<at::Tensor, at::Tensor> parts_of(const at::Tensor& w) {
  std::pair parts(at::full({w.numel()}, 0.0, at::kBFloat16), at::full({w.numel()}, 0, at::kShort));
  for (std::int64_t i = 0; i < w.numel(); ++i) {
    const SplitFloat x = split_float(w.data_ptr<float>()[i]);
    static_cast<std::uint16_t*>(parts.first.data_ptr())[i] = x.high;
    parts.second.data_ptr<std::int16_t>()[i] = x.low;
  }
  return parts;
}

// Row and op, with a gradient in fp32 and one in bf16, against what the same of adamw makes of whole weights: bit for bit.
TEST(AdamwSplitRow, equals_adamw_on_whole_weights) {
  for (const bool decoupled : {true, false})
    for (const double commit : {1.0, 0.0})
      for (const at::ScalarType g_type : {at::kFloat, at::kBFloat16})
        for (const bool in_place : {true, false}) {
          constexpr std::int64_t n = 100'003;
          std::vector<at::Tensor> in = adamw_inputs(n, commit);
          in[3] = in[3].to(g_type);
          const auto [high, low] = parts_of(in[0]);
          std::vector<at::Tensor> parts = {high, low};
          parts.insert(parts.end(), in.begin() + 1, in.end());
          TypesOf whole_types(DType::fp32, in), types(DType::fp32, parts);
          whole_types.storage[3].dtype = types.storage[4].dtype = g_type == at::kFloat ? DType::fp32 : DType::bf16;
          types.storage[0].dtype = DType::bf16, types.storage[1].dtype = DType::i16;
          const Attrs attrs = adamw_attrs(decoupled);
          const KernelRow* whole_row = select_kernel(op("adamw"), DeviceKind::cpu, true, attrs, whole_types.types);
          const KernelRow* row = select_kernel(op("adamw_split"), DeviceKind::cpu, true, attrs, types.types);
          ASSERT_TRUE(whole_row && row);
          for (const bool portable : {true, false}) {
            std::vector<at::Tensor> want, given, got;
            for (std::size_t i = 0; i < 3; ++i) want.push_back(at::full({n}, 9.0, at::kFloat));
            for (const at::Tensor& t : parts) given.push_back(t.clone());
            for (std::size_t i = 0; i < 4; ++i) got.push_back(in_place ? given[i] : at::empty_like(given[i]));
            (portable ? op("adamw").kernel : whole_row->launch)({in, want, attrs});
            (portable ? op("adamw_split").kernel : row->launch)({given, got, attrs});
            const auto [want_high, want_low] = parts_of(want[0]);
            EXPECT_TRUE(at::equal(got[0], want_high)) << portable << decoupled << commit;
            EXPECT_TRUE(at::equal(got[1], want_low)) << portable << decoupled << commit;
            EXPECT_TRUE(at::equal(got[2], want[1])) << portable << decoupled << commit;
            EXPECT_TRUE(at::equal(got[3], want[2])) << portable << decoupled << commit;
            // The half that a step computes with is what a cast makes, but in ties, where the lower half is 0x8000.
            EXPECT_TRUE(got[0]
                            .ne(want[0].to(at::kBFloat16))
                            .logical_and(got[1].ne(std::numeric_limits<std::int16_t>::min()))
                            .sum()
                            .item<std::int64_t>() == 0);
          }
        }
}

TEST(AdamwSplitOp, keeps_numbers_that_are_not_finite) {
  const float values[] = {INFINITY, -INFINITY, NAN, -NAN, std::bit_cast<float>(0x7fffffffu), 3.4e38f};
  at::Tensor w = at::full({6}, 0.0, at::kFloat);
  std::copy(std::begin(values), std::end(values), w.data_ptr<float>());
  std::vector<at::Tensor> in = adamw_inputs(6, 0), out;
  const auto [high, low] = parts_of(w);
  in[0] = high, in.insert(in.begin() + 1, low);
  for (std::size_t i = 0; i < 4; ++i) out.push_back(at::empty_like(in[i]));
  op("adamw_split").kernel({in, out, adamw_attrs(true)});
  EXPECT_TRUE(at::equal(out[0].view(at::kShort), high.view(at::kShort))) << out[0];
  EXPECT_TRUE(at::equal(out[1], low)) << out[1];
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
