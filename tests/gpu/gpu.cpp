#include "gpu/gpu.h"

#include <ATen/ops/empty.h>

#include "base/error.h"

namespace sheaf::testing {

at::Tensor normal(const Shape& shape, at::ScalarType dtype, std::uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> distribution;
  at::Tensor t = at::empty(shape, at::kDouble);
  for (std::int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = distribution(rng);
  return t.to(dtype);
}

namespace {

DType dtype_of(const at::Tensor& t) {
  for (const DType d : {DType::fp64, DType::fp32, DType::bf16, DType::fp16, DType::i64, DType::i32, DType::boolean})
    if (scalar_type(d) == t.scalar_type()) return d;
  SHEAF_CHECK(false, "no dtype for a tensor of the test");
}

struct Typed {
  std::vector<Type> storage;
  Types types;
  explicit Typed(const std::vector<at::Tensor>& in) : storage(in.size()), types(in.size()) {
    for (std::size_t i = 0; i < in.size(); ++i)
      if (in[i].defined()) storage[i] = {dtype_of(in[i]), in[i].sizes().vec(), {}}, types[i] = &storage[i];
  }
};

std::vector<at::Tensor> outputs(const OpDef& def, const std::vector<at::Tensor>& in, const Attrs& attrs, const Types& types) {
  std::vector<at::Tensor> out;
  for (const Type& type : infer(def, attrs, types))
    out.push_back(at::empty(type.shape, at::TensorOptions().dtype(scalar_type(type.dtype)).device(in[0].device())));
  return out;
}

}    // namespace

std::vector<at::Tensor> run_portable(std::string_view name, const std::vector<at::Tensor>& in, const Attrs& attrs) {
  const OpDef& def = op(name);
  const Typed typed(in);
  std::vector<at::Tensor> out = outputs(def, in, attrs, typed.types);
  def.kernel({in, out, attrs});
  return out;
}

std::vector<at::Tensor> run_row(std::string_view op_name, std::string_view name, bool deterministic, const std::vector<at::Tensor>& in,
                                const Attrs& attrs) {
  const OpDef& def = op(op_name);
  const Typed typed(in);
  const KernelRow* row = select_kernel(def, DeviceKind::cuda, deterministic, attrs, typed.types);
  EXPECT_TRUE(row) << op_name << ": no row";
  if (!row) return run_portable(op_name, in, attrs);
  EXPECT_EQ(row->name, name) << op_name;
  std::vector<at::Tensor> out = outputs(def, in, attrs, typed.types);
  row->launch({in, out, attrs});
  return out;
}

}    // namespace sheaf::testing
