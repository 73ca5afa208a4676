#include "gpu/routed.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <fmt/format.h>

#include <algorithm>

namespace sheaf::testing {
namespace {

DType dtype_of(const at::Tensor& t) {
  for (const DType d : {DType::fp64, DType::fp32, DType::bf16, DType::i32})
    if (scalar_type(d) == t.scalar_type()) return d;
  ADD_FAILURE() << "no dtype for a tensor of the test";
  return DType::fp32;
}

std::string shapes(const Operands& in) {
  std::string text;
  for (const Operand& operand : in)
    if (operand.tensor.defined()) {
      text += fmt::format(" {}[", name(dtype_of(operand.tensor)));
      for (std::int64_t d = 0; d < operand.tensor.dim(); ++d) text += fmt::format("{}{}", d ? " " : "", operand.tensor.size(d));
      text += "]";
    }
  return text;
}

}    // namespace

WholeTypes::WholeTypes(const Operands& in, const Routing& r) : storage(in.size()), types(in.size()) {
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (!in[i].tensor.defined()) continue;
    Shape shape = in[i].tensor.sizes().vec();
    if (in[i].routed) shape[0] = r.end - r.begin, shape[1] = r.b, shape[2] = r.s;
    storage[i] = {dtype_of(in[i].tensor), shape, {}, in[i].routed ? r.k : 0};
    types[i] = &storage[i];
  }
}

std::vector<at::Tensor> tensors(const Operands& in) {
  std::vector<at::Tensor> out;
  for (const Operand& operand : in) out.push_back(operand.tensor);
  return out;
}

Routing Routing::decided() const {
  Routing r = *this;
  std::mt19937_64 rng(7);
  r.ids = at::empty({b, s, k}, at::kInt);
  auto* const ids = r.ids.data_ptr<std::int32_t>();
  for (std::int64_t t = 0; t < b * s; ++t)
    for (std::int64_t j = 0; j < k;) {
      const auto draw = [&] { return static_cast<std::int32_t>(rng() % static_cast<std::uint64_t>(chosen)); };
      ids[t * k + j] = rng() % 4 == 0 ? std::min(draw(), draw()) : draw();
      j += std::find(ids + t * k, ids + t * k + j, ids[t * k + j]) == ids + t * k + j;    // distinct
    }
  std::vector<at::Tensor> out = {at::empty({1, 1, capacity()}, at::kInt), at::empty({1, 1, capacity()}, at::kInt)};
  const at::Tensor in[] = {r.ids, {}};
  op("route").kernel({in, out, route_attrs(), begin, end});
  const std::int64_t used = out[0].ge(0).sum().item<std::int64_t>();
  r.slot = out[0].narrow(2, 0, used).contiguous(), r.expert = out[1].narrow(2, 0, used).contiguous();
  return r;
}

Operand random_numbers(const Shape& shape, at::ScalarType dtype) { return {at::randn(shape, at::kFloat).to(dtype)}; }
Operand random_rows(const Routing& routing, const Shape& tail, at::ScalarType dtype) {
  Shape shape = {1, 1, routing.rows()};
  shape.insert(shape.end(), tail.begin(), tail.end());
  return {random_numbers(shape, dtype).tensor, true};
}
Operand slots(const Routing& routing) { return {routing.slot, true}; }
Operand experts(const Routing& routing) { return {routing.expert, true}; }

Operands on_gpu(const Operands& operands) {
  Operands out = operands;
  for (Operand& o : out)
    if (o.tensor.defined()) o.tensor = o.tensor.to(kGpu);
  return out;
}
Operands in_fp64(const Operands& operands) {
  Operands out = operands;
  for (Operand& o : out)
    if (o.tensor.defined()) o.tensor = o.tensor.is_floating_point() ? o.tensor.cpu().to(at::kDouble) : o.tensor.cpu();
  return out;
}

std::vector<at::Tensor> outputs(std::string_view name, const Operands& in, const Attrs& attrs, const Routing& routing) {
  const WholeTypes typed(in, routing);
  std::vector<at::Tensor> out;
  for (const Type& type : infer(op(name), attrs, typed.types)) {
    Shape shape = type.stored();
    if (type.routed) shape[2] = routing.rows();
    out.push_back(at::empty(shape, at::TensorOptions().dtype(scalar_type(type.dtype)).device(in[0].tensor.device())));
    if (is_float(type.dtype)) out.back().fill_(NAN);
  }
  return out;
}

const KernelRow* row_of(std::string_view name, const Operands& in, const Attrs& attrs, const Routing& routing) {
  return select_kernel(op(name), DeviceKind::cuda, true, attrs, WholeTypes(in, routing).types);
}

std::vector<at::Tensor> run_portable(std::string_view name, const Operands& in, const Attrs& attrs, const Routing& routing) {
  std::vector<at::Tensor> out = outputs(name, in, attrs, routing);
  op(name).kernel({tensors(in), out, attrs, routing.begin, routing.end});
  return out;
}

std::vector<at::Tensor> run_row(std::string_view name, std::string_view row_name, const Operands& in, const Attrs& attrs,
                                const Routing& routing) {
  const KernelRow* row = row_of(name, in, attrs, routing);
  EXPECT_TRUE(row) << name << shapes(in) << ": no row";
  if (!row) return run_portable(name, in, attrs, routing);
  EXPECT_EQ(row->name, row_name) << name << shapes(in);
  std::vector<at::Tensor> out = outputs(name, in, attrs, routing);
  const std::vector<at::Tensor> given = tensors(in);
  row->launch({given, out, attrs, routing.begin, routing.end});
  return out;
}

double largest_error(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.cpu().to(at::kDouble), y = b.cpu().to(at::kDouble);
  if (x.sizes() != y.sizes()) return INFINITY;
  if (x.numel() == 0) return 0;
  const double error = x.sub(y).abs().max().item<double>(), most = y.abs().max().item<double>();
  return error == 0 ? 0 : error / most;
}

void expect_near_fp64(std::string_view name, std::string_view row, const Operands& in, Attrs attrs, const Routing& routing, double bound) {
  const Operands device = on_gpu(in);
  const auto got = run_row(name, row, device, attrs, routing), again = run_row(name, row, device, attrs, routing);
  if (attrs.has("dtype")) attrs.set("dtype", Text("same"));
  const auto exact = run_portable(name, in_fp64(in), attrs, routing);
  for (std::size_t i = 0; i < exact.size(); ++i) {
    const double error = largest_error(got[i], exact[i]);
    const std::string what =
        fmt::format("{} '{}' {} {}{} -> {}", name, row, routing.name, print(attrs), shapes(in), sheaf::name(dtype_of(got[i])));
    fmt::print("{:.1e} of {:.1e}  {}\n", error, bound, what);
    EXPECT_LE(error, bound) << what;
    EXPECT_TRUE(at::equal(got[i], again[i])) << what << ": other bits the second time";
  }
}

void expect_equal(std::string_view name, std::string_view row, const Operands& in, const Attrs& attrs, const Routing& routing) {
  const auto got = run_row(name, row, on_gpu(in), attrs, routing), portable = run_portable(name, in, attrs, routing);
  for (std::size_t i = 0; i < portable.size(); ++i)
    EXPECT_TRUE(at::equal(got[i].cpu(), portable[i])) << name << " '" << row << "' " << routing.name << " " << print(attrs) << shapes(in)
                                                      << ": off by " << largest_error(got[i], portable[i]);
}

}    // namespace sheaf::testing
