#include "models/oracle.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <cstring>

#include "base/error.h"
#include "models/loss.h"
#include "ops/aten.h"
#include "passes/pass.h"

namespace sheaf::testing {

Tensors read_tensors(const std::string& path) {
  const std::string file = read_file(path);
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), 8);
  Tensors out;
  const Json header = parse_json(file.substr(8, length), path);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") continue;
    const at::Tensor t =
        at::empty(entry["shape"].get<Shape>(), scalar_type(dtype_from_safetensors(entry["dtype"].get<std::string>()).value()));
    std::memcpy(t.data_ptr(), file.data() + 8 + length + entry["data_offsets"][0].get<std::size_t>(), t.nbytes());
    out[name] = t;
  }
  return out;
}

Fixture read_fixture(const std::string& name) {
  const std::string folder = ".cache/oracle/" + name;
  return {folder, read_json(folder + "/config.json"), read_tensors(folder + "/model.safetensors"),
          read_tensors(folder + "/oracle.safetensors")};
}

namespace {

struct Step {
  Graph graph;
  ModelValues values;
  std::map<std::string, Value> gradients;          // state -> what holds its gradient at the end of the body
  std::vector<std::pair<Value, Value>> routers;    // scores and bias, of each layer with experts
};

// The choices of the I-th router: read from the input @choices.I.
void replay(Graph& graph, Builder& b, Node& choose, std::size_t i) {
  Shape shape = graph.type(choose.out[0]).shape;
  shape.insert(shape.begin(), 1);
  const Value rows =
      graph.declare(ValueKind::input, fmt::format("choices.{}", i), {DType::i32, std::move(shape), {}}, {{"dims", Text("b s k")}});
  choose = {&op(OpId::micro_batch), {rows, b.argument("micro_batch", DType::i32)}, choose.out, {}, {}};
}

void find_routers(Step& step, Builder& b, bool replayed) {
  for (std::size_t i = 0; i < step.values.routed.size(); ++i)
    for (Node& node : step.graph.nodes(Segment::first))
      if (!node.out.empty() && node.out[0] == step.values.routed[i].chosen_bsk) {
        step.routers.emplace_back(node.in[0], node.in[1]);
        if (replayed) replay(step.graph, b, node, i);
      }
}

Step build(const Fixture& fixture, const ModelShape& shape, const StepOptions& o) {
  Step step;
  Builder b(step.graph, Segment::first, o.compute);
  const ModelConfig config = parse_model_config(fixture.config, fixture.folder + "/config.json");
  step.values = build_decoder(b, config, shape);
  find_routers(step, b, o.replay);
  write_mean_loss(b, step.values.nll);
  if (const Value aux = write_aux_loss(b, config, step.values)) b.step_sum("aux_sum", aux);
  verify(step.graph, Level::l1);
  std::vector<Pass> passes = training_passes();
  std::erase_if(passes, [&](const Pass& pass) {
    // Storage: for plans. In bf16 the logits would be read by name in vain: their cast is a part of fused ops.
    return pass.name == "flatten" || (pass.name == "fuse" && o.compute != DType::fp32);
  });
  Options options;
  options.num_micro_batches = o.num_micro_batches;
  options.clip = 0;
  RunPasses run;
  run.dump = [&](std::string_view pass, const Graph& graph) {
    if (pass != "remove_dead") return;    // the last pass before accumulators get their final form
    for (const Node& node : graph.nodes(Segment::first))
      if (node.op->name == "accumulate" && graph[node.in[0]].name.ends_with(".grad")) {
        const std::string& name = graph[node.in[0]].name;
        step.gradients[name.substr(0, name.size() - 5)] = node.in[o.num_micro_batches == 1 ? 1 : 0];
      }
  };
  step.graph = run(std::move(step.graph), passes, options);
  return step;
}

at::Tensor zeros(const Type& type) { return at::zeros(type.shape, scalar_type(type.dtype)); }

void give_all(Interpreter& interpreter, const Graph& graph, const Fixture& fixture, std::int64_t num_micro_batches) {
  for (const Value v : graph.all(ValueKind::input)) {
    const at::Tensor& rows = fixture.oracle.at(graph[v].name);
    interpreter.give(v, rows.to(at::kInt).view(graph.type(v).shape));
  }
  for (const ValueKind kind : {ValueKind::carried, ValueKind::argument})
    for (const Value v : graph.all(kind)) interpreter.give(v, zeros(graph.type(v)));
  for (const Value v : graph.all(ValueKind::state)) {
    const ValueInfo& state = graph[v];
    const auto loaded =
        fixture.model.find(state.attrs.has("trainable") || !state.name.ends_with(".c") ? state.name : state.attrs.text("of"));
    interpreter.give(v, loaded == fixture.model.end() ? zeros(state.type)
                                                      : loaded->second.view(state.type.shape).to(scalar_type(state.type.dtype)).clone());
  }
  if (const Value share = graph.find(std::string("step.") + kMicroBatchShare))
    interpreter.give(share, at::full({}, 1.0 / static_cast<double>(num_micro_batches), at::kFloat));
  // Adam divides by these.
  for (const char* name : {"step.bias1", "step.bias2"}) interpreter.give(graph.find(name), at::full({}, 1.0, at::kFloat));
}

}    // namespace

StepResult run_step(const Fixture& fixture, const StepOptions& o) {
  const at::Tensor& ids = fixture.oracle.at("ids");
  const auto ends = fixture.oracle.find("document_ends");
  const std::int64_t documents = ends == fixture.oracle.end() ? 0 : ends->second.size(1);
  const Step step = build(fixture, {ids.size(0) / o.num_micro_batches, ids.size(1), documents}, o);
  Interpreter interpreter(step.graph);
  give_all(interpreter, step.graph, fixture, o.num_micro_batches);
  interpreter.run(Segment::prologue);
  for (std::int64_t m = 0; m < o.num_micro_batches; ++m) {
    interpreter.give(step.graph.find("step.micro_batch"), at::full({}, m, at::kInt));
    interpreter.run(m == 0 ? Segment::first : Segment::rest);
  }
  interpreter.run(Segment::epilogue);
  const auto metric = [&](const char* name) { return interpreter[step.graph.find(std::string("metric.") + name)]; };
  StepResult result{interpreter[step.values.logits],
                    {},
                    metric("loss").item<double>(),
                    metric("grad_norm").item<double>(),
                    metric("commit").item<double>(),
                    metric("tokens").item<std::int64_t>(),
                    {}};
  for (std::size_t i = 0; i < step.routers.size(); ++i) {
    const auto& [scores, bias] = step.routers[i];
    result.routers.push_back(
        {bias ? interpreter[scores].add(interpreter[bias]) : interpreter[scores], interpreter[step.values.routed[i].chosen_bsk]});
  }
  for (const auto& [name, value] : step.gradients) result.gradients[name] = interpreter[value].reshape(fixture.model.at(name).sizes());
  return result;
}

double relative_error(const at::Tensor& a, const at::Tensor& b) {
  if (a.sizes() != b.sizes()) return INFINITY;
  return a.to(at::kDouble).sub(b.to(at::kDouble)).norm().item<double>() / b.to(at::kDouble).norm().item<double>();
}

}    // namespace sheaf::testing
