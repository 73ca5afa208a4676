// Values that lie beside others (passes/columns.h): every kernel that says that it can do with gaps does, and products of one operand, or
// sums of products, are right one by one and as one.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>

#include <cmath>
#include <limits>
#include <set>

#include "gpu/gpu.h"
#include "gpu/small_step.h"
#include "runtime/executor.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

constexpr std::int64_t kB = 2, kS = 96;

// [b, s, ..] as columns from `first` on of a matrix of `width`, between numbers that no kernel may read or write.
at::Tensor columns_of(const at::Tensor& matrix, const at::Tensor& like, std::int64_t first) {
  std::vector<std::int64_t> strides = like.strides().vec();
  strides[1] = matrix.size(1), strides[0] = like.size(1) * matrix.size(1);
  return matrix.as_strided(like.sizes(), strides, first);
}
std::int64_t width_of(const at::Tensor& t) { return t.numel() / (t.size(0) * t.size(1)); }
bool is_of_tokens(const at::Tensor& t) { return t.defined() && t.dim() > 2 && t.size(0) == kB && t.size(1) == kS; }

struct WithGaps {
  at::Tensor matrix, view;
  explicit WithGaps(const at::Tensor& t)
      : matrix(at::full({t.size(0) * t.size(1), width_of(t) + 48}, std::numeric_limits<double>::quiet_NaN(), t.options())),
        view(columns_of(matrix, t, 16)) {
    view.copy_(t);
  }
  std::int64_t strays() const {    // gaps that were written
    return matrix.numel() - view.numel() - (matrix.isnan().sum().item<std::int64_t>() - view.isnan().sum().item<std::int64_t>());
  }
};

struct Example {
  const char* op;
  std::vector<Shape> in;
  std::vector<std::size_t> fp32;    // which operands are
  Attrs attrs;
};
Attrs product(const char* rule, const char* dtype = "same") { return {{"rule", Text(rule)}, {"dtype", Text(dtype)}}; }
std::vector<Example> examples() {
  const Shape q = {kB, kS, 2, 2, 64}, k = {kB, kS, 2, 64}, angles = {kB, kS, 32}, lse = {kB, kS, 2, 2};
  const Attrs attention = {{"causal", true}, {"scale", 0.125}, {"window", Int(0)}}, norm = {{"eps", 1e-6}, {"interleaved", false}};
  return {{"einsum", {k, {40, 2, 64}}, {}, product("b s h d, k h d -> b s k")},
          {"einsum", {k, {kB, kS, 40}}, {}, product("b s h d, b s k -> h d k", "fp32")},
          {"einsum", {k}, {}, product("b s h d -> h d")},
          {"add", {k, {2, 64}}, {}, {}},
          {"add", {k, k}, {}, {}},
          {"einsum_add", {{2, 64, 40}, k, {kB, kS, 40}}, {0}, product("b s h d, b s k -> h d k", "fp32")},
          {"einsum_each", {{kB, kS, 40}, {2, 64, 40}, {24, 40}}, {}, product("b s k, h d k -> b s h d | b s k, n k -> b s n")},
          {"einsum_sum", {k, {2, 64, 40}, {kB, kS, 24}, {24, 40}}, {}, product("b s h d, h d k -> b s k | b s n, n k -> b s k")},
          {"attention", {q, k, k, {}, {}}, {}, attention},
          {"attention_grad", {q, k, k, q, lse, q, {}, {}}, {4}, attention},
          {"norm_rotate", {q, {64}, angles, angles}, {2, 3}, norm},
          {"norm_rotate_grad", {q, {64}, q, angles, angles}, {3, 4}, norm},
          {"rotate", {q, angles, angles}, {1, 2}, {{"interleaved", false}, {"inverse", false}}},
          {"biased_rotate", {q, {2, 2, 64}, angles, angles}, {2, 3}, {{"interleaved", false}}},
          {"swiglu", {k, k}, {}, {}},
          {"swiglu_grad", {k, k, k}, {}, {}},
          {"geglu", {k, k}, {}, {{"tanh", true}}},
          {"geglu_grad", {k, k, k}, {}, {{"tanh", true}}}};
}
std::vector<at::Tensor> operands(const Example& example) {
  std::vector<at::Tensor> in;
  for (std::size_t i = 0; i < example.in.size(); ++i) {
    const bool wide = std::find(example.fp32.begin(), example.fp32.end(), i) != example.fp32.end();
    in.push_back(example.in[i].empty() ? at::Tensor() : normal(example.in[i], wide ? at::kFloat : at::kBFloat16, i + 1).to(kGpu));
  }
  return in;
}

using ColumnKernels = Gpu;

TEST_F(ColumnKernels, do_with_gaps_what_they_do_without) {
  std::set<std::string_view> done;
  for (const Example& example : examples()) {
    const std::vector<at::Tensor> in = operands(example);
    const KernelRow* row = cuda_row(example.op, true, in, example.attrs);
    ASSERT_TRUE(row) << example.op;
    ASSERT_TRUE(row->columns.in || row->columns.out) << example.op;
    done.insert(row->op);
    const std::vector<at::Tensor> dense = run_row(example.op, row->name, true, in, example.attrs);
    std::vector<at::Tensor> gapped, out;
    std::vector<WithGaps> kept;
    for (std::size_t i = 0; i < in.size(); ++i) {
      const bool may = row->columns.in >> i & 1 && is_of_tokens(in[i]);
      gapped.push_back(may ? kept.emplace_back(in[i]).view : in[i]);
    }
    const std::size_t num_in = kept.size();
    for (std::size_t o = 0; o < dense.size(); ++o) {
      const bool may = row->columns.out >> o & 1 && is_of_tokens(dense[o]);
      out.push_back(may ? kept.emplace_back(dense[o].clone().fill_(1)).view : dense[o].clone().fill_(1));
    }
    EXPECT_GT(kept.size(), 0u) << example.op;
    row->launch({gapped, out, example.attrs});
    for (std::size_t o = 0; o < out.size(); ++o) {
      // Of a product the library may take another algorithm: the order of its fp32 sums, and one rounding to bf16, of half of 2^-8 at most.
      const double most = row->op.starts_with("einsum") ? (out[o].scalar_type() == at::kFloat ? 2e-6 : 2e-3) : 0;
      EXPECT_LE(relative_error(out[o], dense[o]), most) << example.op << " " << o;
    }
    for (std::size_t i = num_in; i < kept.size(); ++i) EXPECT_EQ(kept[i].strays(), 0) << example.op;
  }
  for (const KernelRow& row : kernel_table()) {
    const bool may = row.device == DeviceKind::cuda && (row.columns.in || row.columns.out);
    EXPECT_TRUE(!may || done.contains(row.op)) << row.op << " has no example";
  }
}

// v, and its gradient: q and k may have none then. Of many documents and long rows too, where strays would leave cuDNN's workspace.
TEST_F(ColumnKernels, attention_of_documents_does_too) {
  const Attrs attrs = {{"causal", true}, {"scale", 0.125}, {"window", Int(0)}};
  struct Rows {
    std::int64_t s, hk, r, documents;
  };
  for (const auto& [s, hk, r, documents] : {Rows{kS, 2, 2, 3}, Rows{2048, 4, 6, 16}, Rows{2048, 8, 1, 16}}) {
    const Shape q = {kB, s, hk, r, 64}, k = {kB, s, hk, 64};
    const at::Tensor ends = at::full({kB, documents}, 0, at::kInt);
    for (std::int64_t i = 0; i < ends.numel(); ++i)
      ends.data_ptr<int>()[i] = static_cast<int>((i % documents + 1) * (s / documents - 3) + (i >= documents));
    const std::vector<at::Tensor> in = {normal(q, at::kBFloat16, 1).to(kGpu),
                                        normal(k, at::kBFloat16, 2).to(kGpu),
                                        normal(k, at::kBFloat16, 3).to(kGpu),
                                        ends.to(kGpu),
                                        {}};
    const KernelRow* forward = cuda_row("attention", true, in, attrs);
    ASSERT_EQ(forward->columns.in, 0b100u);
    const auto dense = run_row("attention", "cudnn", true, in, attrs);
    const WithGaps v(in[2]);
    const std::vector<at::Tensor> gapped = {in[0], in[1], v.view, in[3], {}};
    const auto got = run_row("attention", "cudnn", true, gapped, attrs);
    EXPECT_TRUE(at::equal(got[0], dense[0]) && at::equal(got[1], dense[1])) << s << " " << r;
    std::vector<at::Tensor> backward = {in[0], in[1], in[2], dense[0], dense[1], normal(q, at::kBFloat16, 4).to(kGpu), in[3], {}};
    const auto grad = run_row("attention_grad", "cudnn deterministic", true, backward, attrs);
    backward[2] = v.view;
    const WithGaps dv(grad[2].clone().fill_(1));
    std::vector<at::Tensor> out = {grad[0].clone().fill_(1), grad[1].clone().fill_(1), dv.view};
    const KernelRow* row = cuda_row("attention_grad", true, backward, attrs);
    EXPECT_EQ(row->columns.in | row->columns.out, 0b100u);
    row->launch({backward, out, attrs});
    for (std::size_t o = 0; o < 3; ++o) EXPECT_TRUE(at::equal(out[o], grad[o])) << s << " " << r << " " << o;
    EXPECT_EQ(dv.strays(), 0);
  }
}

// Results side by side, and weights one after the other: one product. Its results are rounded once, by half of 2^-8 at most of a number, of
// which a random rounding leaves about half in the 2-norm; one by one, sums are rounded after every product.
TEST_F(ColumnKernels, several_products_as_one) {
  const Attrs each = product("b s k, h d k -> b s h d | b s k, n k -> b s n | b s k, n k -> b s n"),
              sum = product("b s h d, h d k -> b s k | b s n, n k -> b s k | b s n, n k -> b s k");
  const at::Tensor x = normal({kB, kS, 40}, at::kBFloat16, 1), weights = normal({128 + 24 + 24, 40}, at::kBFloat16, 2),
                   given = normal({kB * kS, 128 + 24 + 24}, at::kBFloat16, 3);
  const auto split = [](const at::Tensor& w) {
    return std::vector<at::Tensor>{w.narrow(0, 0, 128).view({2, 64, 40}), w.narrow(0, 128, 24), w.narrow(0, 152, 24)};
  };
  const auto columns = [&](const at::Tensor& matrix) {
    return std::vector<at::Tensor>{matrix.narrow(1, 0, 128).view({kB, kS, 2, 64}), matrix.narrow(1, 128, 24).view({kB, kS, 24}),
                                   matrix.narrow(1, 152, 24).view({kB, kS, 24})};
  };
  const auto wide = [](std::vector<at::Tensor> tensors) {
    for (at::Tensor& t : tensors) t = t.to(at::kDouble);
    return tensors;
  };
  const auto on_gpu = weights.to(kGpu), matrix = given.to(kGpu), x_gpu = x.to(kGpu);
  const auto pairs = [](const std::vector<at::Tensor>& a, const std::vector<at::Tensor>& b) {
    return std::vector<at::Tensor>{a[0], b[0], a[1], b[1], a[2], b[2]};
  };
  const auto with_x = [](const at::Tensor& first, std::vector<at::Tensor> rest) {
    rest.insert(rest.begin(), first);
    return rest;
  };
  const auto copies = [](std::vector<at::Tensor> tensors) {
    for (at::Tensor& t : tensors) t = t.clone(at::MemoryFormat::Contiguous);
    return tensors;
  };
  const auto exact_each = run_portable("einsum_each", wide(with_x(x, split(weights))), each);
  const auto exact_sum = run_portable("einsum_sum", wide(pairs(columns(given), split(weights))), sum);
  for (const bool deterministic : {true, false}) {
    const char* name = deterministic ? "cublasLt" : "cublasLt, measured";
    const auto one_by_one = run_row("einsum_each", name, deterministic, copies(with_x(x_gpu, split(on_gpu))), each);
    at::Tensor result = at::full({kB * kS, 176}, 1, matrix.options());
    std::vector<at::Tensor> in = with_x(x_gpu, split(on_gpu)), out = columns(result);
    cuda_row("einsum_each", deterministic, in, each)->launch({in, out, each});
    for (std::size_t i = 0; i < 3; ++i) {
      EXPECT_LT(relative_error(one_by_one[i], exact_each[i]), 2.4e-3) << i;
      EXPECT_LT(relative_error(out[i], exact_each[i]), 2.4e-3) << i;
    }
    in = pairs(columns(matrix), split(on_gpu));
    const auto rounded = run_row("einsum_sum", name, deterministic, copies(in), sum);
    EXPECT_LT(relative_error(rounded[0], exact_sum[0]), 4e-3);
    std::vector<at::Tensor> total = {rounded[0].clone().fill_(1)};
    cuda_row("einsum_sum", deterministic, in, sum)->launch({in, total, sum});
    EXPECT_LT(relative_error(total[0], exact_sum[0]), 2.4e-3);
  }
}

// q, k and v of a training step, and what their gradients are made of.
TEST_F(ColumnKernels, lie_side_by_side_in_a_plan) {
  const Executor e(step_graph({}), {.device = DeviceKind::cuda});
  std::size_t beside = 0;
  for (const Node& node : e.graph().nodes(Segment::first)) {
    if (node.op->name != "einsum_each" && node.op->name != "einsum_sum") continue;
    const auto place = [&](Value v) { return e.memory().places[static_cast<std::size_t>(v.id)]; };
    const bool each = node.op->name == "einsum_each";
    for (std::size_t i = 0; i < (each ? node.out.size() : node.in.size()); i += each ? 1 : 2)
      beside += place(each ? node.out[i] : node.in[i]).pitch > 0;
    for (std::size_t i = 1; i + 1 < node.in.size(); i += each ? 1 : 2) {
      const Value w = node.in[i], next = node.in[i + (each ? 1 : 2)];
      EXPECT_EQ(place(next).offset, place(w).offset + e.local_bytes(w)) << name_of(e.graph(), next);
    }
  }
  EXPECT_EQ(beside, 6u);
}

}    // namespace
