// CUDA rows of routers against the ops' own kernels.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include "gpu/routed.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

constexpr double kBf16 = 1.0 / 250, kFp32 = 2e-6;
double bound(at::ScalarType dtype) { return dtype == at::kFloat ? kFp32 : kBf16; }
const Routing kNone{"", 1, 1, 1, 1, 0, 1, 1};

struct Router {
  const char* name;
  std::int64_t experts, k, groups, kept_groups, group_top;
  bool bias;
  bool takes_bf16() const { return groups == 0 || bias; }
  Attrs attrs() const { return {{"k", Int(k)}, {"groups", Int(groups)}, {"kept_groups", Int(kept_groups)}, {"group_top", Int(group_top)}}; }
};
std::ostream& operator<<(std::ostream& out, const Router& r) { return out << r.name; }
const Router kRouters[] = {{"mixtral", 8, 2, 0, 0, 0, false},
                           {"llama4", 16, 1, 0, 0, 0, false},
                           {"gpt_oss", 32, 4, 0, 0, 0, false},
                           {"qwen2_moe", 60, 4, 0, 0, 0, false},
                           {"olmoe", 64, 8, 0, 0, 0, false},
                           {"ernie4_5", 64, 6, 0, 0, 0, true},
                           {"qwen3_moe", 128, 8, 0, 0, 0, false},
                           {"deepseek_v2", 160, 6, 8, 3, 1, false},
                           {"deepseek_v3", 256, 8, 8, 4, 2, true},
                           {"minimax_m2", 256, 8, 0, 0, 0, true},
                           {"most_experts", 512, 10, 0, 0, 0, false},
                           {"every_expert", 5, 5, 0, 0, 0, true},
                           {"more_than_the_kept_groups_have", 12, 7, 4, 2, 2, false},
                           {"groups_of_one", 32, 3, 32, 5, 2, false},
                           {"groups_across_lanes", 352, 8, 32, 7, 2, true},
                           {"no_group_kept", 24, 4, 3, 0, 1, false},
                           {"every_group_kept", 24, 4, 3, 5, 2, true}};

class ChooseExperts : public Gpu, public ::testing::WithParamInterface<Router> {};
INSTANTIATE_TEST_SUITE_P(Routers, ChooseExperts, ::testing::ValuesIn(kRouters),
                         [](const auto& info) { return std::string(info.param.name); });

// Scores of few values make ties; both zeros are equal, infinities and NaN have a place in the order as well.
TEST_P(ChooseExperts, equals_the_ops_own_kernel_bit_for_bit) {
  at::manual_seed(1);
  const Router& r = GetParam();
  const at::Tensor bias = r.bias ? at::randint(-2, 3, {r.experts}, at::kFloat).div(4) : at::Tensor();
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    if (dtype == at::kBFloat16 && !r.takes_bf16()) continue;
    for (const Shape& tokens : {Shape{1, 1}, Shape{3, 333}}) {
      const Shape shape = {tokens[0], tokens[1], r.experts};
      const at::Tensor few = at::randint(-3, 4, shape, at::kFloat).div(4), rare = at::rand(shape);
      at::Tensor odd = few.clone();
      odd.masked_fill_(rare.lt(0.2), -0.0).masked_fill_(rare.lt(0.1), -INFINITY).masked_fill_(rare.lt(0.04), INFINITY);
      odd.masked_fill_(rare.lt(0.02), NAN);
      for (const at::Tensor& scores : {few, odd, at::randn(shape), at::full(shape, 0.25), at::full(shape, -INFINITY)})
        expect_equal("choose_experts", "sheaf", {{scores.to(dtype)}, {bias}}, r.attrs(), kNone);
    }
  }
}

using RouterRows = Gpu;

TEST_F(RouterRows, what_they_cannot_do_is_left_to_the_ops_own_kernels) {
  const auto takes = [](std::int64_t experts, at::ScalarType dtype, const at::Tensor& bias, std::int64_t groups, std::int64_t top) {
    const Attrs attrs = {{"k", Int(2)}, {"groups", Int(groups)}, {"kept_groups", Int(1)}, {"group_top", Int(top)}};
    return row_of("choose_experts", {random_numbers({2, 3, experts}, dtype), {bias}}, attrs, kNone) != nullptr;
  };
  const auto bias = [](at::ScalarType dtype) { return random_numbers({64}, dtype).tensor; };
  EXPECT_TRUE(takes(64, at::kBFloat16, bias(at::kFloat), 4, 2));
  EXPECT_FALSE(takes(64, at::kBFloat16, {}, 4, 2)) << "a group's worth in bf16";
  EXPECT_FALSE(takes(64, at::kFloat, {}, 4, 3)) << "a sum of three";
  EXPECT_FALSE(takes(64, at::kFloat, {}, 64, 1)) << "more groups than lanes";
  EXPECT_FALSE(takes(64, at::kFloat, bias(at::kBFloat16), 0, 0));
  EXPECT_FALSE(takes(513, at::kFloat, {}, 0, 0));
  EXPECT_FALSE(takes(64, at::kDouble, {}, 0, 0));
}

// 131,072 ids are what the blocks look at together; one more is a second turn.
TEST_F(RouterRows, counts) {
  at::manual_seed(1);
  for (const std::int64_t experts : {1, 8, 60, 128, 512})
    for (const Shape& shape : {Shape{1, 1, 1}, Shape{2, 50, 7}, Shape{4, 4096, 8}, Shape{1, 131073, 1}, Shape{3, 100000, 1}})
      for (const std::int64_t chosen : {std::int64_t{1}, (experts + 1) / 2, experts})
        expect_equal("count_experts", "sheaf", {{at::randint(0, chosen, shape, at::kInt)}}, {{"experts", Int(experts)}}, kNone);
}

TEST_F(RouterRows, route_of_many_ids) {
  for (const auto& unknown : {Routing{"two_turns", 512, 1, 20000, 10, 0, 512, 500}, Routing{"a_piece", 512, 2, 30000, 10, 128, 192, 512}}) {
    const Routing r = unknown.decided();
    const KernelRow* row = row_of("route", {{r.ids}, {}}, r.route_attrs(), r);
    ASSERT_TRUE(row);
    const at::Tensor in[] = {r.ids.to(kGpu), {}};
    std::vector<at::Tensor> out = {at::full({r.capacity()}, 77, in[0].options()), at::full({r.capacity()}, 77, in[0].options())};
    row->launch({in, out, r.route_attrs(), r.begin, r.end});
    const at::Tensor slot = out[0].cpu(), expert = out[1].cpu();
    EXPECT_TRUE(at::equal(slot.narrow(0, 0, r.rows()), r.slot.view({-1}))) << r.name;
    EXPECT_TRUE(at::equal(expert.narrow(0, 0, r.rows()), r.expert.view({-1}))) << r.name;
    EXPECT_TRUE(slot.slice(0, r.rows()).eq(-1).all().item<bool>()) << r.name;
    EXPECT_TRUE(expert.slice(0, r.rows()).eq(INT32_MAX).all().item<bool>()) << r.name;
  }
}

TEST_F(RouterRows, softmax_and_its_gradient) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& shape : {Shape{3, 37, 4}, Shape{1, 1, 1}, Shape{2, 50, 60}, Shape{1000, 128}, Shape{3, 160}, Shape{7, 512}}) {
      const Operand x{random_numbers(shape, at::kFloat).tensor.mul(5).to(dtype)};
      expect_near_fp64("softmax", "sheaf", {x}, {}, kNone, bound(dtype));
      const Operand y = {run_portable("softmax", Operands{x}, {}, kNone)[0]};
      expect_near_fp64("softmax_rows_grad", "sheaf", {y, random_numbers(shape, dtype)}, {}, kNone, bound(dtype));
    }
}

// The floor of 6 is above the sums of some rows and below those of others.
TEST_F(RouterRows, normalize_and_its_gradient) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Shape& shape : {Shape{3, 37, 8}, Shape{1, 3}, Shape{2, 500, 6}, Shape{1000, 10}, Shape{5, 64}})
      for (const auto& [eps, floor] : {std::pair(0.0, 0.0), {1e-20, 0.0}, {0.25, 0.0}, {0.0, 6.0}}) {
        const Attrs attrs = {{"eps", eps}, {"floor", floor}};
        const Operand x{at::rand(shape).mul(2.5).add(0.01).to(dtype)};
        expect_near_fp64("normalize", "sheaf", {x}, attrs, kNone, bound(dtype));
        expect_near_fp64("normalize_grad", "sheaf", {x, random_numbers(shape, dtype)}, attrs, kNone, bound(dtype));
      }
}

// Copies; where ids repeat, sums in the order of the choices.
TEST_F(RouterRows, take_and_put) {
  at::manual_seed(1);
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Router& r : kRouters) {
      const Operand x = random_numbers({3, 111, r.experts}, dtype), dy = random_numbers({3, 111, r.k}, dtype);
      const Operand ids = {run_portable("choose_experts", Operands{x, {}}, Router{r.name, r.experts, r.k}.attrs(), kNone)[0]};
      expect_equal("take", "sheaf", {x, ids}, {}, kNone);
      expect_equal("put", "sheaf", {dy, ids}, {{"extent", Int(r.experts)}}, kNone);
      const Operand repeated = {at::randint(0, r.experts, {3, 111, r.k}, at::kInt)};
      expect_near_fp64("put", "sheaf", {dy, repeated}, {{"extent", Int(r.experts)}}, kNone, bound(dtype));
    }
}

// SHEAF_TIMES=1: a layer of Qwen3-30B-A3B on 16,384 tokens; choices of DeepSeek-V3.
TEST_F(RouterRows, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  const auto gpu = at::TensorOptions().device(kGpu);
  const auto scores = [&](const Router& r) { return at::rand({4, 4096, r.experts}, gpu); };
  const Router qwen3{"qwen3_moe", 128, 8, 0, 0, 0, false}, v3{"deepseek_v3", 256, 8, 8, 4, 2, true};
  const at::Tensor x = scores(qwen3), dy = scores(qwen3);
  const at::Tensor ids = run_row("choose_experts", "sheaf", true, {x, {}}, qwen3.attrs())[0], few = at::rand({4, 4096, 8}, gpu);
  const Attrs norm = {{"eps", 0.0}, {"floor", 0.0}};
  print_time("softmax", "sheaf", {x}, {});
  print_time("choose_experts", "sheaf", {x, {}}, qwen3.attrs());
  print_time("count_experts", "sheaf", {ids}, {{"experts", Int(128)}});
  print_time("take", "sheaf", {x, ids}, {});
  print_time("normalize", "sheaf", {few}, norm);
  print_time("normalize_grad", "sheaf", {few, few}, norm);
  print_time("put", "sheaf", {few, ids}, {{"extent", Int(128)}});
  print_time("softmax_rows_grad", "sheaf", {x, dy}, {});
  print_time("choose_experts", "sheaf", {scores(v3), at::rand({256}, gpu)}, v3.attrs());
}

}    // namespace
