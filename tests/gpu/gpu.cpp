#include "gpu/gpu.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAFunctions.h>
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <map>

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
  for (const DType d : {DType::fp64, DType::fp32, DType::bf16, DType::fp16, DType::i64, DType::i32, DType::i16, DType::boolean})
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

const KernelRow* cuda_row(std::string_view name, bool deterministic, const std::vector<at::Tensor>& in, const Attrs& attrs) {
  return select_kernel(op(name), DeviceKind::cuda, deterministic, attrs, Typed(in).types);
}

std::vector<at::Tensor> run_row(std::string_view op_name, std::string_view name, bool deterministic, const std::vector<at::Tensor>& in,
                                const Attrs& attrs) {
  const OpDef& def = op(op_name);
  const Typed typed(in);
  const KernelRow* row = cuda_row(op_name, deterministic, in, attrs);
  EXPECT_TRUE(row) << op_name << ": no row";
  if (!row) return run_portable(op_name, in, attrs);
  EXPECT_EQ(row->name, name) << op_name;
  std::vector<at::Tensor> out = outputs(def, in, attrs, typed.types);
  if (row->tune) {
    std::vector<at::Tensor> lost;
    for (const at::Tensor& t : in) lost.push_back(t.defined() ? t.clone() : t);
    row->tune({lost, out, attrs});
  }
  row->launch({in, out, attrs});
  return out;
}

double milliseconds(const std::function<void()>& work) {
  constexpr int kWarm = 3, kTimes = 20;
  for (int i = 0; i < kWarm; ++i) work();
  c10::cuda::device_synchronize();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kTimes; ++i) work();
  c10::cuda::device_synchronize();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / kTimes;
}

double milliseconds(const KernelRow& row, const std::vector<at::Tensor>& in, std::vector<at::Tensor>& out, const Attrs& attrs) {
  std::int64_t bytes = 0;
  {
    const ScratchScope measuring(DeviceKind::cuda, nullptr, 0);
    row.launch({in, out, attrs});
    bytes = measuring.peak();
  }
  constexpr std::int64_t kHead = 256;    // not at the start of a block: see Executor
  const at::Tensor slot = at::zeros({kHead + bytes}, at::TensorOptions().dtype(at::kByte).device(kGpu));
  return milliseconds([&] {
    const ScratchScope scope(DeviceKind::cuda, static_cast<char*>(slot.data_ptr()) + kHead, bytes);
    row.launch({in, out, attrs});
  });
}

double copied_bytes_per_ms(double bytes) {
  static std::map<double, double> known;
  double& speed = known[bytes];
  if (speed > 0) return speed;
  const auto half = std::max<std::int64_t>(16, static_cast<std::int64_t>(bytes / 2));
  const at::Tensor from = at::zeros({half}, at::TensorOptions().dtype(at::kByte).device(kGpu)), to = from.clone();
  return speed = 2.0 * static_cast<double>(half) / milliseconds([&] { to.copy_(from); });
}

bool times_wanted() { return std::getenv("SHEAF_TIMES"); }

void print_time(std::string_view op_name, const char* name, const std::vector<at::Tensor>& in, const Attrs& attrs) {
  const OpDef& def = op(op_name);
  const Typed typed(in);
  const KernelRow* row = cuda_row(op_name, true, in, attrs);
  ASSERT_EQ(row ? std::string(row->name) : "", name ? name : "") << op_name;
  std::vector<at::Tensor> out = outputs(def, in, attrs, typed.types);
  const double ms = row ? milliseconds(*row, in, out, attrs) : milliseconds([&] { def.kernel({in, out, attrs}); });
  double bytes = 0;
  std::string shapes;
  for (const std::vector<at::Tensor>& tensors : {in, out})
    for (const at::Tensor& t : tensors)
      if (t.defined()) bytes += static_cast<double>(t.nbytes());
  for (const std::int64_t extent : in[0].sizes()) shapes += fmt::format(" {}", extent);
  fmt::print("{:8.3f} ms  {:5.2f} TB/s  {:4.0f} % of a copy  {}{} {}\n", ms, bytes / ms / 1e9,
             100 * bytes / ms / copied_bytes_per_ms(bytes), op_name, shapes, name ? name : "portable");
}

}    // namespace sheaf::testing
