// CUDA rows other than attention, each against its portable twin on the CPU.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

using SumsOfTokens = Gpu;
class WideProduct : public Gpu, public ::testing::WithParamInterface<Product> {};

// A bf16 intermediate would show as an error of about 2e-3.
TEST_P(WideProduct, of_bf16_operands_is_exact_to_fp32) {
  const Product& p = GetParam();
  const at::Tensor x = normal(p.x, at::kBFloat16, 1), y = normal(p.y, at::kBFloat16, 2);
  const auto exact = run_portable("einsum", {x.to(at::kDouble), y.to(at::kDouble)}, {{"rule", Text(p.rule)}, {"dtype", Text("same")}});
  const auto got = run_row("einsum", "fp32 out", true, {x.to(kGpu), y.to(kGpu)}, {{"rule", Text(p.rule)}, {"dtype", Text("fp32")}});
  EXPECT_EQ(got[0].scalar_type(), at::kFloat);
  EXPECT_LT(relative_error(got[0], exact[0]), 2e-6);
}

INSTANTIATE_TEST_SUITE_P(Rules, WideProduct,
                         ::testing::Values(Product{"dot", "b k, b k -> ()", {40, 64}, {40, 64}},
                                           Product{"dots", "b k, b k -> b", {40, 61}, {40, 61}},
                                           Product{"rows_times_vector", "b s k, k -> b s", {2, 50, 128}, {128}},
                                           Product{"one_row", "b s k, n k -> b s n", {1, 1, 128}, {72, 128}},
                                           Product{"outer", "a k, b k -> a b", {40, 1}, {24, 1}}),
                         [](const auto& info) { return std::string(info.param.name); });

// Of one token, of fewer than there are parts, of many; widths that fill no warp.
TEST_F(SumsOfTokens, equal_the_op_in_fp64) {
  for (const Shape& shape : {Shape{1, 1, 8}, Shape{1, 3, 2, 20}, Shape{2, 33, 264}, Shape{4, 4096, 12, 128}, Shape{1, 1000, 5120}})
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const at::Tensor x = normal(shape, dtype, 1);
      const char* const rule = shape.size() == 3 ? "b s k -> k" : "b s h d -> h d";
      const auto exact = run_portable("einsum", {x.to(at::kDouble), {}}, {{"rule", Text(rule)}, {"dtype", Text("same")}});
      for (const char* to : {"fp32", "bf16"}) {
        const Attrs attrs = {{"rule", Text(rule)}, {"dtype", Text(to)}};
        const auto got = run_row("einsum", "sums", true, {x.to(kGpu), {}}, attrs);
        EXPECT_LT(relative_error(got[0], exact[0]), std::string_view(to) == "fp32" ? 2e-6 : 4e-3) << x.sizes();    // bf16: one rounding
        EXPECT_TRUE(at::equal(got[0], run_row("einsum", "sums", true, {x.to(kGpu), {}}, attrs)[0])) << x.sizes();
      }
    }
}

// SHEAF_TIMES=1: gradients of biases, of 16,384 tokens.
TEST_F(SumsOfTokens, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  for (const Shape& shape : {Shape{4, 4096, 256}, Shape{4, 4096, 1536}, Shape{4, 4096, 2880}})
    print_time("einsum", "sums", {normal(shape, at::kBFloat16, 1).to(kGpu), {}}, {{"rule", Text("b s k -> k")}, {"dtype", Text("fp32")}});
}

// Weights as one number or as two halves; how moments and gradients are stored; where pieces begin: 1 is on the bytes of one number only,
// 4 on 8 bytes for 16-bit numbers.
struct Update {
  bool split, decoupled;
  at::ScalarType moments, gradient;
  std::int64_t n, skipped;
  double commit;
};

class AdamwKernel : public Gpu {
 protected:
  static void equals_its_twin(const Update& u) {
    const std::int64_t all = u.n + u.skipped;
    const auto piece = [&](const at::Tensor& whole) { return whole.narrow(0, u.skipped, u.n); };
    const auto number = [](double x) { return at::full({}, x, at::kFloat); };
    std::vector<at::Tensor> in = {piece(normal({all}, u.split ? at::kBFloat16 : at::kFloat, 1))};
    if (u.split)
      in.push_back(piece(at::randint(-32768, 32768, {all}, at::TensorOptions().dtype(at::kShort))));    // any 16 bits are a low half
    in.insert(in.end(),
              {piece(normal({all}, u.moments, 2)), piece(normal({all}, u.moments, 3).abs()), piece(normal({all}, u.gradient, 4))});
    const std::size_t states = in.size() - 1;
    for (const double x : {0.7, u.commit, 1e-3, 0.9, 0.95, 0.271, 0.142625}) in.push_back(number(x));
    const Attrs attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", Bool(u.decoupled)}};
    std::vector<at::Tensor> host, device;
    std::vector<Type> storage;
    for (const at::Tensor& t : in) {
      host.push_back(t.clone());
      // The whole allocation moves, so that a view keeps its odd address.
      device.push_back(t.dim() ? piece(t.as_strided({all}, {1}, 0).to(kGpu)) : t.to(kGpu));
      const bool half = t.scalar_type() == at::kShort, wide = t.scalar_type() == at::kFloat;
      storage.push_back({half ? DType::i16 : wide ? DType::fp32 : DType::bf16, t.sizes().vec(), {}});
    }
    Types types;
    for (const Type& t : storage) types.push_back(&t);
    const auto end = static_cast<std::ptrdiff_t>(states);
    std::vector<at::Tensor> host_out(host.begin(), host.begin() + end), device_out(device.begin(), device.begin() + end);    // in place
    const OpDef& update = op(u.split ? "adamw_split" : "adamw");
    const KernelRow* cpu = select_kernel(update, DeviceKind::cpu, true, attrs, types);
    const KernelRow* cuda = select_kernel(update, DeviceKind::cuda, true, attrs, types);
    ASSERT_TRUE(cpu && cuda);
    cpu->launch({host, host_out, attrs});
    cuda->launch({device, device_out, attrs});
    for (std::size_t i = 0; i < states; ++i)
      EXPECT_TRUE(at::equal(device_out[i].cpu(), host_out[i]))
          << "output " << i << " of " << u.n << " from " << u.skipped << ", decoupled " << u.decoupled << ", commit " << u.commit;
  }
};

TEST_F(AdamwKernel, equals_its_portable_twin_bit_for_bit) {
  for (const bool split : {false, true})
    for (const std::int64_t n : {1, 3, 4, 1000003})
      for (const std::int64_t skipped : {0, 1, 4})
        for (const at::ScalarType moments : {at::kFloat, at::kBFloat16})
          for (const auto& [decoupled, gradient] : {std::pair(true, at::kFloat), {false, at::kFloat}, {true, at::kBFloat16}})
            for (const double commit : {1.0, 0.0}) equals_its_twin({split, decoupled, moments, gradient, n, skipped, commit});
}

using SumsqKernel = Gpu;

// fp32 sums of parts: a few units of 6e-8 each. The same bits every time.
TEST_F(SumsqKernel, equals_the_sum_in_fp64_and_repeats_bit_for_bit) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const std::int64_t n : {1, 7, 8, 2049, 5'000'003})
      for (const std::int64_t skipped : {0, 1}) {    // 1: not on 16 bytes
        const at::Tensor all = normal({n + skipped}, dtype, 1), x = all.to(kGpu).narrow(0, skipped, n);
        const double exact = all.narrow(0, skipped, n).to(at::kDouble).square().sum().item<double>();
        const auto got = run_row("sumsq", "sheaf", true, {x}, {});
        EXPECT_NEAR(got[0].item<double>(), exact, 1e-6 * exact) << n << " from " << skipped;
        EXPECT_TRUE(at::equal(got[0], run_row("sumsq", "sheaf", true, {x}, {})[0]));
      }
}

// SHEAF_TIMES=1: the epilogue over 2^28 elements; adamw in place, as in a run.
TEST_F(SumsqKernel, times_of_the_epilogue) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  constexpr std::int64_t n = std::int64_t{1} << 28;
  const auto filled = [](at::ScalarType dtype) { return at::full({n}, 0.01, at::TensorOptions().dtype(dtype).device(kGpu)); };
  const auto number = [](double x) { return at::full({}, x, at::TensorOptions().dtype(at::kFloat).device(kGpu)); };
  const Attrs attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", Bool(true)}};
  std::vector<at::Tensor> states = {filled(at::kFloat), filled(at::kFloat), filled(at::kFloat)};
  const at::Tensor high = filled(at::kBFloat16), low = at::full({n}, 7, at::TensorOptions().dtype(at::kShort).device(kGpu));
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor g = filled(dtype);
    print_time("sumsq", "sheaf", {g}, {});
    const auto print_update = [&](const char* name, const std::vector<at::Tensor>& weight) {
      std::vector<at::Tensor> out = weight;
      out.insert(out.end(), states.begin() + 1, states.end());
      std::vector<at::Tensor> in = out;
      in.push_back(g);
      for (const double x : {1.0, 1.0, 1e-3, 0.9, 0.95, 0.1, 0.05}) in.push_back(number(x));
      const double ms = milliseconds(*cuda_row(name, true, in, attrs), in, out, attrs), bytes = 24.0 * n + static_cast<double>(g.nbytes());
      fmt::print("{:8.3f} ms  {:5.2f} TB/s  {:4.0f} % of a copy  {} in place, {} bytes a gradient\n", ms, bytes / ms / 1e9,
                 100 * bytes / ms / copied_bytes_per_ms(bytes), name, g.element_size());
    };
    print_update("adamw", {states[0]});
    print_update("adamw_split", {high, low});
  }
}

using EmbeddingGradKernel = Gpu;

TEST_F(EmbeddingGradKernel, equals_the_composition_and_repeats_bit_for_bit) {
  const std::int64_t v = 300, k = 200;
  const Attrs attrs = {{"padding_id", Int(7)}};
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf})
    for (const auto id_type : {at::kInt, at::kLong}) {
      const at::Tensor ids = at::randint(0, v, {4, 1000}, at::TensorOptions().dtype(id_type)), dy = normal({4, 1000, k}, dtype, 1);
      ids.view({-1}).narrow(0, 0, 1500).fill_(11);    // one frequent token
      const at::Tensor table = normal({v, k}, dtype, 2);
      const auto exact = run_portable("embedding_grad", {dy.to(at::kDouble), ids, table.to(at::kDouble)}, attrs);
      const std::vector<at::Tensor> in = {dy.to(kGpu), ids.to(kGpu), table.to(kGpu)};
      const auto got = run_row("embedding_grad", "sorted", true, in, attrs);
      EXPECT_EQ(got[0].scalar_type(), at::kFloat);
      EXPECT_LT(relative_error(got[0], exact[0]), 1e-6);
      EXPECT_TRUE(at::equal(got[0], run_row("embedding_grad", "sorted", true, in, attrs)[0]));
    }
}

TEST_F(EmbeddingGradKernel, answers_for_its_piece_of_the_table) {
  const Attrs attrs = {{"padding_id", Int(-1)}};
  const at::Tensor ids = at::randint(0, 30, {500}, at::TensorOptions().dtype(at::kLong)), dy = normal({500, 9}, at::kFloat, 1);
  const auto whole = run_portable("embedding_grad", {dy, ids, normal({30, 9}, at::kFloat, 2)}, attrs);
  const std::vector<at::Tensor> in = {dy.to(kGpu), ids.to(kGpu), normal({10, 9}, at::kFloat, 2).to(kGpu)};
  const Type types[] = {{DType::fp32, {500, 9}, {}}, {DType::i64, {500}, {}}, {DType::fp32, {10, 9}, {}}};
  const KernelRow* row = select_kernel(op("embedding_grad"), DeviceKind::cuda, true, attrs, {&types[0], &types[1], &types[2]});
  ASSERT_TRUE(row);
  std::vector<at::Tensor> out = {at::full({10, 9}, 5.0, in[0].options())};
  row->launch({in, out, attrs, 20});
  EXPECT_LT(relative_error(out[0], whole[0].narrow(0, 20, 10)), 1e-6);
}

}    // namespace
