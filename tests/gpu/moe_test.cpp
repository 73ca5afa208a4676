// CUDA rows of mixtures of experts against the ops' own kernels.
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <map>
#include <span>
#include <tuple>

#include "gpu/routed.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

// A bf16 is off by up to 2^-8; what fp32 does before is far below that.
constexpr double kBf16 = 1.0 / 250, kFp32 = 1e-6, kFp32Sum = 1e-5;
double bound(at::ScalarType dtype) { return dtype == at::kFloat ? kFp32 : kBf16; }

const Routing kRoutings[] = {{"uneven_an_expert_without_rows", 5, 2, 37, 2, 0, 5, 4},
                             {"one_choice", 8, 3, 50, 1, 0, 8, 8},
                             {"one_token", 4, 1, 1, 3, 0, 4, 4},
                             {"every_expert_of_every_token", 3, 2, 20, 3, 0, 3, 3},
                             {"many_experts", 200, 1, 1000, 10, 0, 200, 190},
                             {"a_piece_of_the_experts", 8, 2, 100, 3, 2, 5, 8},
                             {"a_piece_without_rows", 8, 1, 64, 2, 6, 8, 6},
                             {"qwen3_30b", 128, 4, 4096, 8, 0, 128, 128}};
bool is_large(const Routing& r) { return r.b * r.s > 10000; }
std::string name_of(const ::testing::TestParamInfo<Routing>& info) { return info.param.name; }

class RoutedKernels : public Gpu, public ::testing::WithParamInterface<Routing> {
 protected:
  void SetUp() override {
    Gpu::SetUp();
    if (IsSkipped()) return;
    at::manual_seed(1);
    r_ = GetParam().decided();
  }
  std::vector<Shape> tails() const { return is_large(r_) ? std::vector<Shape>{{72}} : std::vector<Shape>{{8}, {2, 40}, {2056}}; }
  Operand tokens(const Shape& tail, at::ScalarType dtype) const {
    Shape shape = {r_.b, r_.s};
    shape.insert(shape.end(), tail.begin(), tail.end());
    return random_numbers(shape, dtype);
  }
  Routing r_;
};
INSTANTIATE_TEST_SUITE_P(Routings, RoutedKernels, ::testing::ValuesIn(kRoutings), name_of);

// place: the experts in another order, each three further on.
TEST_P(RoutedKernels, route) {
  const at::Tensor place = at::arange(r_.experts, at::kInt).roll({3}, {0}), none;
  for (const at::Tensor& placed : {none, place}) {
    const KernelRow* row = row_of("route", {{r_.ids}, {placed}}, r_.route_attrs(), r_);
    ASSERT_TRUE(row);
    const auto run = [&](auto* kernel, at::Device device) {
      const at::Tensor in[] = {r_.ids.to(device), placed.defined() ? placed.to(device) : none};
      std::vector<at::Tensor> out = {at::full({1, 1, r_.capacity()}, 77, in[0].options()),
                                     at::full({1, 1, r_.capacity()}, 77, in[0].options())};
      kernel({in, out, r_.route_attrs(), r_.begin, r_.end});
      return out;
    };
    const auto host = run(op("route").kernel, at::kCPU), device = run(row->launch, kGpu), own = run(op("route").kernel, kGpu);
    for (const std::size_t i : {0, 1}) {
      EXPECT_TRUE(at::equal(device[i].cpu(), host[i])) << "output " << i << (placed.defined() ? ", placed" : "");
      EXPECT_TRUE(at::equal(own[i].cpu(), host[i])) << "output " << i << (placed.defined() ? ", placed" : "") << ", the op's own kernel";
    }
  }
}

// They stay what runs where no row takes a call.
TEST_P(RoutedKernels, own_kernels_on_the_gpu_equal_those_on_the_cpu) {
  if (is_large(r_)) return;
  const std::int64_t e = r_.end - r_.begin;
  const Attrs k = {{"k", Int(r_.k)}};
  const auto product = [](const char* rule) { return Attrs{{"rule", Text(rule)}, {"dtype", Text("same")}}; };
  const Operand x = random_rows(r_, {5}, at::kFloat), y = random_rows(r_, {2, 3}, at::kFloat);
  const std::tuple<const char*, Operands, Attrs> calls[] = {
      {"dispatch", {tokens({5}, at::kFloat), slots(r_)}, k},
      {"combine", {x, slots(r_)}, k},
      {"dispatch_weights", {tokens({r_.k}, at::kFloat), slots(r_)}, {}},
      {"combine_weights", {random_rows(r_, {}, at::kFloat), slots(r_)}, k},
      {"grouped_einsum", {x, random_numbers({e, 2, 3, 5}, at::kFloat), experts(r_)}, product("e b s h, e g m h -> e b s g m")},
      {"grouped_einsum", {y, x, experts(r_)}, product("e b s g m, e b s h -> e g m h")},
      {"add_expert_bias", {x, random_numbers({e, 5}, at::kFloat), experts(r_)}, {}},
      {"sum_expert_rows", {x, experts(r_)}, {{"dtype", Text("same")}}},
      {"biased_weighted", {x, random_numbers({e, 5}, at::kFloat), experts(r_), random_rows(r_, {}, at::kFloat)}, {}}};
  for (const auto& [name, in, attrs] : calls)
    EXPECT_LE(largest_error(run_portable(name, on_gpu(in), attrs, r_)[0], run_portable(name, in, attrs, r_)[0]), 3e-6)
        << name << " " << print(attrs);
}

// Copies, and sums in fp32 in the same order.
TEST_P(RoutedKernels, dispatch_and_combine) {
  const Attrs k = {{"k", Int(r_.k)}};
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const Shape& tail : tails()) {
      expect_equal("dispatch", "sheaf", {tokens(tail, dtype), slots(r_)}, k, r_);
      expect_equal("combine", "sheaf", {random_rows(r_, tail, dtype), slots(r_)}, k, r_);
    }
    expect_equal("dispatch_weights", "sheaf", {tokens({r_.k}, dtype), slots(r_)}, {}, r_);
    expect_equal("combine_weights", "sheaf", {random_rows(r_, {}, dtype), slots(r_)}, k, r_);
  }
}

Attrs einsum_attrs(const char* rule, const char* dtype = "same") { return {{"rule", Text(rule)}, {"dtype", Text(dtype)}}; }

TEST_P(RoutedKernels, einsums_row_by_row) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& tail : tails()) {
      const bool pairs = tail.size() == 2;
      const Operand x = random_rows(r_, tail, dtype), y = random_rows(r_, tail, dtype);
      for (const auto w_dtype : {at::kFloat, at::kBFloat16})
        expect_near_fp64("einsum", "rows times numbers", {x, random_rows(r_, {}, w_dtype)},
                         einsum_attrs(pairs ? "e b s g m, e b s -> e b s g m" : "e b s h, e b s -> e b s h"), r_, bound(dtype));
      const char* const dot = pairs ? "e b s g m, e b s g m -> e b s" : "e b s h, e b s h -> e b s";
      expect_near_fp64("einsum", "rows times rows", {x, y}, einsum_attrs(dot, "fp32"), r_, kFp32Sum);
      expect_near_fp64("einsum", "rows times rows", {x, y}, einsum_attrs(dot, "bf16"), r_, kBf16);
    }
}

// Pairs of halves of a row, or of neighbours.
Attrs gated_attrs(bool neighbours) {
  return {{"rule", Text(neighbours ? "e b s m g -> e b s m" : "e b s g m -> e b s m")},
          {"activation", Text(neighbours ? "clamped_swiglu" : "silu")},
          {"limit", neighbours ? 0.75 : 0.0}};
}

// The gradient of the weights is of their dtype.
TEST_P(RoutedKernels, gated_and_weighted) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto w_dtype : {at::kFloat, at::kBFloat16})
      for (const std::int64_t m : is_large(r_) ? std::vector<std::int64_t>{72} : std::vector<std::int64_t>{8, 40, 2056})
        for (const bool neighbours : {false, true}) {
          Attrs attrs = gated_attrs(neighbours);
          const Operand x = random_rows(r_, neighbours ? Shape{m, 2} : Shape{2, m}, dtype), w = random_rows(r_, {}, w_dtype);
          expect_near_fp64("gated_weighted", "sheaf", {x, w}, attrs, r_, bound(dtype));
          attrs.set("dtype", Text(w_dtype == at::kFloat ? "fp32" : "bf16"));
          const bool rounded = dtype == at::kBFloat16 || w_dtype == at::kBFloat16;
          expect_near_fp64("gated_weighted_grad", "sheaf", {x, w, random_rows(r_, {m}, dtype)}, attrs, r_, rounded ? kBf16 : kFp32Sum);
        }
}

TEST_P(RoutedKernels, biases_and_their_gradients) {
  const std::int64_t e = r_.end - r_.begin;
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& tail : tails()) {
      Shape each = tail;
      each.insert(each.begin(), e);
      const Operand x = random_rows(r_, tail, dtype), bias = random_numbers(each, dtype);
      expect_near_fp64("add_expert_bias", "sheaf", {x, bias, experts(r_)}, {}, r_, bound(dtype));
      for (const char* result : {"fp32", "bf16"})
        expect_near_fp64("sum_expert_rows", "sheaf", {x, experts(r_)}, {{"dtype", Text(result)}}, r_,
                         std::string_view(result) == "fp32" ? kFp32Sum : kBf16);
      if (tail.size() == 2) continue;
      for (const auto w_dtype : {at::kFloat, at::kBFloat16}) {
        const Operand w = random_rows(r_, {}, w_dtype);
        expect_near_fp64("biased_weighted", "sheaf", {x, bias, experts(r_), w}, {}, r_, bound(dtype));
        const Attrs attrs = {{"dtype", Text(w_dtype == at::kFloat ? "fp32" : "bf16")}};
        const bool rounded = dtype == at::kBFloat16 || w_dtype == at::kBFloat16;
        expect_near_fp64("biased_weighted_grad", "sheaf", {x, bias, experts(r_), w, random_rows(r_, tail, dtype)}, attrs, r_,
                         rounded ? kBf16 : kFp32Sum);
      }
    }
}

// At the limit the gradient jumps. Of multiples of 2^-10 fp32 has the sums exactly, so they lie on the same side of it as in fp64.
TEST_P(RoutedKernels, biased_and_gated) {
  const auto on_grid = [](Operand x) {
    x.tensor = x.tensor.to(at::kFloat).mul(1024).round().div(1024).to(x.tensor.scalar_type());
    return x;
  };
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const std::int64_t m : is_large(r_) ? std::vector<std::int64_t>{72} : std::vector<std::int64_t>{8, 40, 2056})
      for (const bool neighbours : {false, true}) {
        const Attrs attrs = gated_attrs(neighbours);
        const Shape row = neighbours ? Shape{m, 2} : Shape{2, m};
        const Operand x = on_grid(random_rows(r_, row, dtype)), bias = on_grid(random_numbers({r_.end - r_.begin, row[0], row[1]}, dtype));
        expect_near_fp64("biased_gated", "sheaf", {x, bias, experts(r_)}, attrs, r_, bound(dtype));
        expect_near_fp64("biased_gated_grad", "sheaf", {x, bias, experts(r_), random_rows(r_, {m}, dtype)}, attrs, r_,
                         dtype == at::kBFloat16 ? kBf16 : kFp32Sum);
      }
}

// Extents above 128 take CUTLASS's large tiles where experts have more than 128 rows.
TEST_P(RoutedKernels, products) {
  const std::map<char, std::int64_t> extents = {{'h', 136}, {'g', 2}, {'m', 72}};
  const auto operand = [&](std::string_view letters) {
    Shape own;
    for (const char c : letters)
      if (extents.contains(c)) own.push_back(extents.at(c));
    if (letters.find('b') != std::string_view::npos) return random_rows(r_, own, at::kBFloat16);
    own.insert(own.begin(), r_.end - r_.begin);
    return random_numbers(own, at::kBFloat16);
  };
  const char* const rules[] = {"e b s h, e g m h -> e b s g m", "e b s g m, e g m h -> e b s h", "e b s g m, e b s h -> e g m h",
                               "e b s m, e h m -> e b s h",     "e b s h, e h m -> e b s m",     "e b s h, e b s m -> e h m",
                               "e b s h, e h m g -> e b s m g", "e b s m g, e h m g -> e b s h", "e b s m g, e b s h -> e h m g",
                               "e b s h, e b s m -> e m h",     "e b s h, e h g m -> e b s g m", "e b s g m, e h g m -> e b s h",
                               "e b s g m, e b s h -> e h g m", "e b s m, e m h -> e b s h",     "e b s h, e m h -> e b s m"};
  for (const std::string_view rule : std::span(rules).first(is_large(r_) ? 3 : std::size(rules))) {
    const std::size_t comma = rule.find(','), arrow = rule.find("->");
    const Operands in = {operand(rule.substr(0, comma)), operand(rule.substr(comma, arrow - comma)), experts(r_)};
    expect_near_fp64("grouped_einsum", "grouped", in, einsum_attrs(rule.data()), r_, kBf16);
    if (!in[1].routed) continue;
    expect_near_fp64("grouped_einsum", "grouped, fp32 of bf16", in, einsum_attrs(rule.data(), "fp32"), r_, kBf16);
  }
}

using MoeRows = Gpu;

TEST_F(MoeRows, what_they_cannot_do_is_left_to_the_ops_own_kernels) {
  const Routing r = kRoutings[0].decided();
  const auto taken = [&](const char* rule, const Shape& row, const Shape& weight, at::ScalarType dtype) {
    const KernelRow* found =
        row_of("grouped_einsum", {random_rows(r, row, dtype), random_numbers(weight, dtype), experts(r)}, einsum_attrs(rule), r);
    return found && found->capture_safe;    // the op's own kernel, which reads the rows of an expert on the host, has a row as well
  };
  EXPECT_TRUE(taken("e b s h, e m h -> e b s m", {16}, {5, 8, 16}, at::kBFloat16));
  EXPECT_FALSE(taken("e b s h, e m h -> e b s m", {12}, {5, 8, 12}, at::kBFloat16)) << "lines that do not begin on 16 bytes";
  EXPECT_FALSE(taken("e b s h, e m h -> e b s m", {16}, {5, 12, 16}, at::kBFloat16));
  EXPECT_FALSE(taken("e b s h, e m h -> e b s m", {16}, {5, 8, 16}, at::kFloat));
  EXPECT_FALSE(taken("e b s h, e m g h -> e b s g m", {16}, {5, 4, 2, 16}, at::kBFloat16)) << "no view";
  EXPECT_FALSE(row_of("combine", {random_rows(r, {12}, at::kFloat), slots(r)}, {{"k", Int(2)}}, r));
}

struct GatedCase {
  const char* rule;
  Shape x;
};

TEST_F(MoeRows, gated_and_its_gradient) {
  at::manual_seed(1);
  const Routing none{"", 1, 1, 1, 1, 0, 1, 1};
  const GatedCase cases[] = {{"t g m -> t m", {37, 2, 8}},         {"t g m -> t m", {3, 2, 2056}}, {"b s g m -> b s m", {2, 50, 2, 96}},
                             {"t m g -> t m", {37, 8, 2}},         {"t m g -> t m", {3, 2056, 2}}, {"b s m g -> b s m", {2, 50, 96, 2}},
                             {"t g h d -> t h d", {11, 2, 3, 16}}, {"g t m -> t m", {2, 11, 40}}};
  for (const auto& [rule, shape] : cases)
    for (const char* activation : {"silu", "gelu", "gelu_tanh", "relu", "clamped_swiglu"})
      for (const double limit : {0.0, 0.75})
        for (const auto dtype : {at::kFloat, at::kBFloat16}) {
          const Attrs attrs = {{"rule", Text(rule)}, {"activation", Text(activation)}, {"limit", limit}};
          const Operand x{random_numbers(shape, at::kFloat).tensor.mul(3).to(dtype)};
          expect_near_fp64("gated", "sheaf", {x}, attrs, none, bound(dtype));
          const auto dy = random_numbers(run_portable("gated", Operands{x}, attrs, none)[0].sizes().vec(), dtype);
          expect_near_fp64("gated_grad", "sheaf", {x, dy}, attrs, none, bound(dtype));
        }
}

TEST_F(MoeRows, weights_are_of_what_lies_in_front_of_the_pairs) {
  const Routing none{"", 1, 1, 1, 1, 0, 1, 1};
  const auto taken = [&](const char* rule, const Shape& x) {
    const Attrs attrs = {{"rule", Text(rule)}, {"activation", Text("silu")}, {"limit", 0.0}};
    return row_of("gated_weighted", {random_numbers(x, at::kFloat), random_numbers({2, 2, 8}, at::kFloat)}, attrs, none) != nullptr;
  };
  EXPECT_TRUE(taken("e b s g m -> e b s m", {2, 2, 8, 2, 8}));
  EXPECT_TRUE(taken("e b s m g -> e b s m", {2, 2, 8, 8, 2}));
  EXPECT_FALSE(taken("e b g s m -> e b s m", {2, 2, 2, 8, 8}));
  EXPECT_FALSE(taken("e b s g m -> e b s m", {2, 2, 8, 2, 12}));
}

}    // namespace
