// CUDA rows other than attention, each against its portable twin on the CPU.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <fmt/format.h>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

struct Product {
  const char *name, *rule;
  Shape x, y;
};
std::ostream& operator<<(std::ostream& out, const Product& p) { return out << p.rule; }

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

using AdamwKernel = Gpu;

TEST_F(AdamwKernel, equals_its_portable_twin_bit_for_bit) {
  const auto number = [](double x) { return at::full({}, x, at::kFloat); };
  for (const std::int64_t n : {1, 3, 4, 1000003})
    for (const std::int64_t skipped : {0, 1})    // 1: not on 16 bytes
      for (const auto& [decoupled, g_dtype] : {std::pair(true, at::kFloat), {false, at::kFloat}, {true, at::kBFloat16}})
        for (const double commit : {1.0, 0.0}) {
          const auto from = [&, g = g_dtype](std::uint64_t seed) {
            const at::Tensor all = normal({n + skipped}, seed == 4 ? g : at::kFloat, seed);
            return (seed == 3 ? all.abs() : all).narrow(0, skipped, n);    // 3: v
          };
          const std::vector<at::Tensor> in = {from(1),      from(2),     from(3),      from(4),       number(0.7),     number(commit),
                                              number(1e-3), number(0.9), number(0.95), number(0.271), number(0.142625)};
          const Attrs attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", Bool(decoupled)}};
          std::vector<at::Tensor> host, device, twin;
          for (std::size_t i = 0; i < in.size(); ++i) {
            host.push_back(in[i].clone());
            // The whole allocation moves, so that a view keeps its odd address.
            device.push_back(in[i].dim() ? in[i].as_strided({n + skipped}, {1}, 0).to(kGpu).narrow(0, skipped, n) : in[i].to(kGpu));
          }
          std::vector<at::Tensor> host_out(host.begin(), host.begin() + 3), device_out(device.begin(), device.begin() + 3);    // in place
          std::vector<Type> storage;
          for (const at::Tensor& t : in)
            storage.push_back({t.scalar_type() == at::kFloat ? DType::fp32 : DType::bf16, t.sizes().vec(), {}});
          Types types;
          for (const Type& t : storage) types.push_back(&t);
          const KernelRow* cpu = select_kernel(op("adamw"), DeviceKind::cpu, true, attrs, types);
          const KernelRow* cuda = select_kernel(op("adamw"), DeviceKind::cuda, true, attrs, types);
          ASSERT_TRUE(cpu && cuda);
          cpu->launch({host, host_out, attrs});
          cuda->launch({device, device_out, attrs});
          for (std::size_t i = 0; i < 3; ++i)
            EXPECT_TRUE(at::equal(device_out[i].cpu(), host_out[i]))
                << "output " << i << " n " << n << " decoupled " << decoupled << " commit " << commit << " off by "
                << relative_error(device_out[i], host_out[i]);
        }
}

TEST_F(AdamwKernel, of_split_weights_equals_its_portable_twin_bit_for_bit) {
  const auto number = [](double x) { return at::full({}, x, at::kFloat); };
  for (const std::int64_t n : {1, 3, 4, 1000003})
    for (const std::int64_t skipped : {0, 1, 4})    // 1: on 2 bytes only; 4: 16-bit numbers on 8
      for (const auto& [decoupled, g_dtype] : {std::pair(true, at::kFloat), {false, at::kFloat}, {true, at::kBFloat16}})
        for (const double commit : {1.0, 0.0}) {
          const auto from = [&](at::ScalarType dtype, std::uint64_t seed) {
            const at::Tensor all = normal({n + skipped}, dtype, seed);
            return (seed == 4 ? all.abs() : all).narrow(0, skipped, n);    // 4: v
          };
          // Any 16 bits are a low half.
          const at::Tensor low = at::randint(-32768, 32768, {n + skipped}, at::TensorOptions().dtype(at::kShort)).narrow(0, skipped, n);
          const std::vector<at::Tensor> in = {
              from(at::kBFloat16, 1), low,          from(at::kFloat, 3), from(at::kFloat, 4), from(g_dtype, 5), number(0.7),
              number(commit),         number(1e-3), number(0.9),         number(0.95),        number(0.271),    number(0.142625)};
          const Attrs attrs = {{"eps", 1e-8}, {"weight_decay", 0.1}, {"decoupled", Bool(decoupled)}};
          std::vector<at::Tensor> host, device;
          for (const at::Tensor& t : in) {
            host.push_back(t.clone());
            // The whole allocation moves, so that a view keeps its odd address.
            device.push_back(t.dim() ? t.as_strided({n + skipped}, {1}, 0).to(kGpu).narrow(0, skipped, n) : t.to(kGpu));
          }
          std::vector<at::Tensor> host_out(host.begin(), host.begin() + 4), device_out(device.begin(), device.begin() + 4);    // in place
          const Type types[] = {{DType::bf16, {n}, {}},
                                {DType::i16, {n}, {}},
                                {DType::fp32, {n}, {}},
                                {g_dtype == at::kFloat ? DType::fp32 : DType::bf16, {n}, {}},
                                {DType::fp32, {}, {}}};
          Types list = {&types[0], &types[1], &types[2], &types[2], &types[3]};
          list.resize(in.size(), &types[4]);
          const KernelRow* cpu = select_kernel(op("adamw_split"), DeviceKind::cpu, true, attrs, list);
          const KernelRow* cuda = select_kernel(op("adamw_split"), DeviceKind::cuda, true, attrs, list);
          ASSERT_TRUE(cpu && cuda);
          cpu->launch({host, host_out, attrs});
          cuda->launch({device, device_out, attrs});
          for (std::size_t i = 0; i < 4; ++i)
            EXPECT_TRUE(at::equal(device_out[i].cpu(), host_out[i]))
                << "output " << i << " n " << n << " skipped " << skipped << " decoupled " << decoupled << " commit " << commit;
        }
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
                 100 * bytes / ms / copied_bytes_per_ms(), name, g.element_size());
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
