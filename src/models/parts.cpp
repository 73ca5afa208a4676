#include "models/parts.h"

#include <fmt/ranges.h>

#include "base/text.h"

namespace sheaf {

Value Parts::in_file(Value v, const std::string& name, const Shape& shape, const Shape& file) {
  if (shape != file) b.graph()[b.graph().find(name)].attrs.set("file_shape", Text(fmt::format("[{}]", fmt::join(file, " "))));
  return v;
}

Value Parts::parameter(const std::string& name, const Shape& shape, const char* init, const Shape& file) {
  return in_file(b.parameter(name, shape, init, c.initializer_range), name, shape, file);
}

Value Parts::parameter_fp32(const std::string& name, const Shape& shape, const char* init, const Shape& file, bool trained) {
  return in_file(b.parameter_fp32(name, shape, init, c.initializer_range, trained), name, shape, file);
}

Value Parts::linear(const char* rule, Value x, const std::string& name, const Shape& out, const Shape& in, bool bias) {
  Shape shape = out;
  shape.insert(shape.end(), in.begin(), in.end());
  const Value y = b.einsum(rule, x, parameter(name + ".weight", shape, "normal", {num_elements(out), num_elements(in)}));
  return bias ? b.add(y, parameter(name + ".bias", out, "zeros", {num_elements(out)})).front() : y;
}

Value Parts::norm(Value x, const std::string& name, const Shape& shape, double eps) {
  const Shape file = {num_elements(shape)};
  return b.rms_norm(
      x, c.fp32_norms ? parameter_fp32(name + ".weight", shape, "ones", file) : parameter(name + ".weight", shape, "ones", file), eps);
}

Value Parts::activate(Value x) {
  switch (c.activation) {
    case Activation::silu:
      return b.silu(x);
    case Activation::gelu:
      return b.gelu(x, false);
    case Activation::gelu_tanh:
      return b.gelu(x, true);
    case Activation::relu:
      return b.relu(x);
  }
  return x;
}

Value Parts::to_compute(Value x) { return b.type(x).dtype == b.compute() ? x : Value(b.cast(x, Text(name(b.compute())))); }
Value Parts::to_fp32(Value x) { return b.type(x).dtype == DType::fp32 ? x : Value(b.cast(x, Text("fp32"))); }

Value write_mlp(Parts& p, Value x_bsk, const std::string& prefix, std::int64_t intermediate) {
  const bool bias = p.c.mlp_bias;
  const Value gate_bsi = p.linear("b s k, i k -> b s i", x_bsk, prefix + "gate_proj", {intermediate}, {p.c.hidden}, bias);
  const Value up_bsi = p.linear("b s k, i k -> b s i", x_bsk, prefix + "up_proj", {intermediate}, {p.c.hidden}, bias);
  return p.linear("b s i, k i -> b s k", p.b.mul(p.activate(gate_bsi), up_bsi), prefix + "down_proj", {p.c.hidden}, {intermediate}, bias);
}

}    // namespace sheaf
