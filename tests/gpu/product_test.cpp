// einsum and einsum_add as matrix products by cuBLASLt.
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <thread>

#include "gpu/gpu.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

Attrs attrs_of(const char* rule, const char* dtype) { return {{"rule", Text(rule)}, {"dtype", Text(dtype)}}; }

// fp32 results: rounding of sums of up to 1,024 products. Results in 16 bits are rounded once, by at most 2^-9 in bf16 and 2^-12 in fp16 of
// a number, of which a random rounding leaves about half in the 2-norm.
double bound(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : dtype == at::kHalf ? 3e-4 : 2.4e-3; }

class LtProduct : public Gpu, public ::testing::WithParamInterface<Product> {};

TEST_P(LtProduct, equals_the_op_in_fp64_and_repeats_bit_for_bit) {
  const Product& p = GetParam();
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor x = normal(p.x, dtype, 1), y = normal(p.y, dtype, 2);
    const auto exact = run_portable("einsum", {x.to(at::kDouble), y.to(at::kDouble)}, attrs_of(p.rule, "same"));
    for (const char* result : {"same", "fp32"})
      for (const bool deterministic : {true, false}) {
        const char* name = deterministic ? "cublasLt" : "cublasLt, measured";
        const auto run = [&] { return run_row("einsum", name, deterministic, {x.to(kGpu), y.to(kGpu)}, attrs_of(p.rule, result))[0]; };
        const at::Tensor got = run();
        EXPECT_LT(relative_error(got, exact[0]), bound(got.scalar_type())) << name << " to " << result;
        EXPECT_TRUE(at::equal(got, run())) << name << " to " << result;
      }
  }
}

TEST_P(LtProduct, is_added_in_place_and_not) {
  const Product& p = GetParam();
  for (const at::ScalarType acc_dtype : {at::kBFloat16, at::kFloat})
    for (const bool deterministic : {true, false}) {
      const at::Tensor x = normal(p.x, at::kBFloat16, 1), y = normal(p.y, at::kBFloat16, 2);
      const Attrs attrs = attrs_of(p.rule, acc_dtype == at::kFloat ? "fp32" : "same");
      const at::Tensor product = run_portable("einsum", {x.to(at::kDouble), y.to(at::kDouble)}, attrs_of(p.rule, "same"))[0];
      const at::Tensor acc = normal(product.sizes().vec(), acc_dtype, 3).mul(3);
      const at::Tensor exact = product.add(acc);
      const std::vector<at::Tensor> in = {acc.to(kGpu), x.to(kGpu), y.to(kGpu)};
      const char* name = deterministic ? "cublasLt" : "cublasLt, measured";
      const at::Tensor beside = run_row("einsum_add", name, deterministic, in, attrs)[0];
      EXPECT_EQ(beside.scalar_type(), acc_dtype);
      EXPECT_LT(relative_error(beside, exact), bound(acc_dtype));
      EXPECT_TRUE(at::equal(in[0].cpu(), acc)) << "acc was written";
      std::vector<at::Tensor> in_place = {in[0]};
      cuda_row("einsum_add", deterministic, in, attrs)->launch({in, in_place, attrs});
      EXPECT_LT(relative_error(in_place[0], exact), bound(acc_dtype));
      // In bf16 the library rounds otherwise where it adds in place (seen on an H200): two roundings apart, each of 2^-9 at most.
      EXPECT_LE(relative_error(in_place[0], beside), acc_dtype == at::kFloat ? 0 : 4e-3);
    }
}

INSTANTIATE_TEST_SUITE_P(Rules, LtProduct,
                         ::testing::Values(Product{"q", "b s k, h r d k -> b s h r d", {2, 96, 256}, {2, 2, 64, 256}},
                                           Product{"q_dx", "b s h r d, h r d k -> b s k", {2, 96, 2, 2, 64}, {2, 2, 64, 256}},
                                           Product{"q_dw", "b s h r d, b s k -> h r d k", {2, 512, 2, 2, 64}, {2, 512, 256}},
                                           Product{"o", "b s h r d, k h r d -> b s k", {2, 96, 2, 2, 64}, {256, 2, 2, 64}},
                                           Product{"o_dx", "b s k, k h r d -> b s h r d", {2, 96, 256}, {256, 2, 2, 64}},
                                           Product{"o_dw", "b s k, b s h r d -> k h r d", {2, 512, 256}, {2, 512, 2, 2, 64}},
                                           Product{"up", "b s k, m k -> b s m", {2, 100, 64}, {72, 64}},
                                           Product{"down", "b s m, k m -> b s k", {2, 100, 72}, {64, 72}},
                                           Product{"gate_up", "b s k, g m k -> b s g m", {2, 100, 64}, {2, 72, 64}},
                                           Product{"linear_dw", "b n, b k -> n k", {1000, 200}, {1000, 136}},
                                           Product{"experts", "e t k, e n k -> e t n", {4, 128, 64}, {4, 48, 64}},
                                           Product{"experts_dw", "e t m, e t n -> e m n", {4, 128, 64}, {4, 128, 48}},
                                           Product{"output_turned", "b s n, b s k -> k n", {2, 64, 32}, {2, 64, 40}},
                                           Product{"batch_inside", "t e m, t e n -> m e n", {128, 4, 64}, {128, 4, 48}},
                                           Product{"output_gaps", "a k, k b c -> b a c", {24, 40}, {40, 16, 8}},
                                           Product{"operand_gaps", "a k c, k b -> a c b", {24, 40, 3}, {40, 16}},
                                           Product{"odd", "b n, b k -> n k", {33, 7}, {33, 5}},
                                           Product{"odd_forward", "b s k, n k -> b s n", {1, 61, 129}, {77, 129}}),
                         [](const auto& info) { return std::string(info.param.name); });

using LtProducts = Gpu;

// Pieces of states begin anywhere; those of packs on 32 bytes. A call whose addresses are less even than those it was measured with.
TEST_F(LtProducts, take_operands_at_any_address) {
  const Attrs attrs = attrs_of("b k, n k -> b n", "fp32");
  const at::Tensor x = normal({64, 128}, at::kBFloat16, 1), y = normal({80, 128}, at::kBFloat16, 2);
  const auto exact = run_portable("einsum", {x.to(at::kDouble), y.to(at::kDouble)}, attrs_of("b k, n k -> b n", "same"));
  for (const std::int64_t skipped : {16, 8, 4, 2, 1})
    for (const bool deterministic : {true, false}) {
      at::Tensor moved = at::zeros({skipped + y.numel()}, x.to(kGpu).options()).narrow(0, skipped, y.numel()).view(y.sizes());
      moved.copy_(y);
      const at::Tensor on_gpu = x.to(kGpu);
      const KernelRow* row = cuda_row("einsum", deterministic, {on_gpu, moved}, attrs);
      ASSERT_TRUE(row);
      std::vector<at::Tensor> in = {on_gpu, moved}, out = {at::zeros({64, 80}, at::TensorOptions().dtype(at::kFloat).device(kGpu))};
      row->launch({in, out, attrs});
      EXPECT_LT(relative_error(out[0], exact[0]), bound(at::kFloat)) << skipped;
    }
}

TEST_F(LtProducts, take_the_same_algorithm_in_all_threads) {
  const Attrs attrs = attrs_of("b n, b k -> n k", "fp32");
  const at::Tensor x = normal({4096, 128}, at::kBFloat16, 1).to(kGpu), y = normal({4096, 256}, at::kBFloat16, 2).to(kGpu);
  std::vector<at::Tensor> results(4);
  std::vector<std::thread> threads;
  for (at::Tensor& result : results)
    threads.emplace_back([&] {
      const c10::InferenceMode no_tape;
      result = run_row("einsum", "cublasLt, measured", false, {x, y}, attrs)[0];
    });
  for (std::thread& thread : threads) thread.join();
  for (const at::Tensor& result : results) EXPECT_TRUE(at::equal(result, results[0]));
}

struct Timed {
  const char *name, *rule, *dtype;
  Shape x, y;
};

// SHEAF_TIMES=1: the products of a layer and of the head of Qwen3-1.7B on 16,384 tokens, against LibTorch's mm of the same matrices.
TEST_F(LtProducts, times) {
  if (!times_wanted()) GTEST_SKIP() << "SHEAF_TIMES=1 prints times";
  constexpr std::int64_t b = 4, s = 4096, k = 2048, h = 8, r = 2, d = 128, m = 6144, v = 151936, t = 2048;
  const Timed products[] = {{"q", "b s k, h r d k -> b s h r d", "same", {b, s, k}, {h, r, d, k}},
                            {"q dx, o", "b s h r d, h r d k -> b s k", "same", {b, s, h, r, d}, {h, r, d, k}},
                            {"q dw", "b s h r d, b s k -> h r d k", "fp32", {b, s, h, r, d}, {b, s, k}},
                            {"k, v", "b s k, h d k -> b s h d", "same", {b, s, k}, {h, d, k}},
                            {"k, v dx", "b s h d, h d k -> b s k", "same", {b, s, h, d}, {h, d, k}},
                            {"k, v dw", "b s h d, b s k -> h d k", "fp32", {b, s, h, d}, {b, s, k}},
                            {"gate, up", "b s k, m k -> b s m", "same", {b, s, k}, {m, k}},
                            {"gate, up dx", "b s m, m k -> b s k", "same", {b, s, m}, {m, k}},
                            {"gate, up dw", "b s m, b s k -> m k", "fp32", {b, s, m}, {b, s, k}},
                            {"down", "b s m, k m -> b s k", "same", {b, s, m}, {k, m}},
                            {"down dx", "b s k, k m -> b s m", "same", {b, s, k}, {k, m}},
                            {"down dw", "b s k, b s m -> k m", "fp32", {b, s, k}, {b, s, m}},
                            {"head, 2,048 rows", "t k, v k -> t v", "same", {t, k}, {v, k}},
                            {"head dx", "t v, v k -> t k", "same", {t, v}, {v, k}},
                            {"head dw", "t v, t k -> v k", "fp32", {t, v}, {t, k}}};
  const auto given = [](const Shape& shape) { return at::randn(shape, at::TensorOptions().dtype(at::kBFloat16).device(kGpu)); };
  take_lasting_workspaces(DeviceKind::cuda, 0);
  for (const Timed& p : products) {
    const std::vector<at::Tensor> in = {given(p.x), given(p.y)};
    const Attrs attrs = attrs_of(p.rule, p.dtype);
    const Type x{DType::bf16, p.x, {}}, y{DType::bf16, p.y, {}};
    const double flop = flops(op("einsum"), attrs, {&x, &y});
    std::vector<at::Tensor> out = run_row("einsum", "cublasLt, measured", false, in, attrs), out_add = {out[0].clone()};
    std::vector<at::Tensor> lost = {out[0].clone(), in[0].clone(), in[1].clone()}, in_add = {out_add[0], in[0], in[1]};
    const double measured = milliseconds(*cuda_row("einsum", false, in, attrs), in, out, attrs);
    const double guessed = milliseconds(*cuda_row("einsum", true, in, attrs), in, out, attrs);
    const KernelRow* adds = cuda_row("einsum_add", false, in_add, attrs);
    adds->tune({lost, out, attrs});
    const double added = milliseconds(*adds, in_add, out_add, attrs);
    // The op's own kernel is mm; with fp32 results it is addmm.
    const KernelRow* last = nullptr;
    for (const KernelRow& row : kernel_table())
      if (row.op == "einsum" && row.name == "fp32 out") last = &row;
    const double aten = milliseconds([&] {
      const Args args{in, out, attrs};
      Text(p.dtype) == "fp32" ? last->launch(args) : op("einsum").kernel(args);
    });
    fmt::print("{:18} {:8.3f} ms {:4.0f} TFLOP/s   guessed {:8.3f} ms {:4.0f}   added {:8.3f} ms {:4.0f}   LibTorch {:8.3f} ms {:4.0f}\n",
               p.name, measured, flop / measured / 1e9, guessed, flop / guessed / 1e9, added, flop / added / 1e9, aten, flop / aten / 1e9);
  }
}

}    // namespace
