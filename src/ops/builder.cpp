#include "ops/builder.h"

#include "base/error.h"

namespace sheaf {

Results::operator Value() const {
  SHEAF_CHECK(size() == 1, "an op with {} outputs is used as one value", size());
  return front();
}

Results Builder::call(const OpDef& op, Values in, Attrs attrs, std::string note) {
  return Results(graph_.append(segment_, op, std::move(in), std::move(attrs), std::move(note)));
}

Value Builder::input(std::string name, DType dtype, Shape shape, Text dims) {
  shape.insert(shape.begin(), 1);
  const Value rows = graph_.declare(ValueKind::input, std::move(name), {dtype, std::move(shape), {}}, {{"dims", std::move(dims)}});
  return micro_batch(rows, argument("micro_batch", DType::i32));
}

Value Builder::parameter(const std::string& name, Shape shape, const std::string& init, double std) {
  if (frozen_names_ && frozen_names_(name)) {
    const Value v = graph_.declare(ValueKind::state, name, {stored_, std::move(shape), {}},
                                   {{"init", Text(init)}, {"std", Float(std)}, {"trainable", Bool(false)}});
    return stored_ == compute_ ? v : cast(v, Text(sheaf::name(compute_))).front();
  }
  const Value master = graph_.declare(ValueKind::state, name, {frozen_ ? compute_ : DType::fp32, shape, {}},
                                      {{"init", Text(init)}, {"std", Float(std)}, {"trainable", Bool(!frozen_)}});
  if (frozen_ || compute_ == DType::fp32) return master;
  return graph_.declare(ValueKind::state, name + ".c", {compute_, std::move(shape), {}}, {{"of", Text(name)}});
}

Value Builder::parameter_fp32(const std::string& name, Shape shape, const std::string& init, double std, bool trained) {
  return graph_.declare(
      ValueKind::state, name, {DType::fp32, std::move(shape), {}},
      {{"init", Text(init)}, {"std", Float(std)}, {"trainable", Bool(trained && !frozen_ && !(frozen_names_ && frozen_names_(name)))}});
}

Value Builder::constant(std::string name, DType dtype, Shape shape, std::vector<double> data) {
  SHEAF_CHECK(static_cast<std::int64_t>(data.size()) == num_elements(shape), "constant '{}' has {} numbers for {} elements", name,
              data.size(), num_elements(shape));
  if (const Value known = graph_.find(name)) {
    SHEAF_CHECK(graph_[known].data == data, "constant '{}' is declared with two values", name);
    return known;
  }
  const Value v = graph_.declare(ValueKind::constant, std::move(name), {dtype, std::move(shape), {}});
  graph_[v].data = std::move(data);
  return v;
}

Value Builder::argument(const std::string& name, DType dtype) {
  const std::string full = "step." + name;
  if (const Value known = graph_.find(full)) return known;
  return graph_.declare(ValueKind::argument, full, {dtype, {}, {}});
}

Value Builder::step_sum(const std::string& name, Value value) {
  const Value sum = graph_.declare(ValueKind::carried, name, type(value));
  accumulate(sum, value);
  return sum;
}

void Builder::metric(const std::string& name, Value value) {
  set(graph_.declare(ValueKind::state, "metric." + name, {type(value).dtype, type(value).shape, {}}, {{"metric", Bool(true)}}), value);
}

void Builder::update(Value state, Value expr, Value commit) { set(state, choose(commit, expr, state)); }

Text Grad::dtype_for(std::size_t operand) const {
  const ValueInfo& info = b.graph()[in[operand]];
  const DType dtype = info.type.dtype;
  const bool low = dtype == DType::bf16 || dtype == DType::fp16;
  return Text(name(info.kind == ValueKind::state && low ? DType::fp32 : dtype));
}

}    // namespace sheaf
