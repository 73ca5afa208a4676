#include "runtime/scratch_plan.h"

#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "base/error.h"
#include "comm/null.h"
#include "ops/aten.h"
#include "ops/op_table.h"
#include "passes/storage.h"
#include "runtime/collectives.h"
#include "runtime/dynamic_rows.h"
#include "runtime/gpu_scratch.h"
#include "runtime/scratch.h"

namespace sheaf {

std::vector<Type> local_types(const Graph& graph, std::int64_t rank) {
  std::vector<Type> out;
  out.reserve(graph.values.size());
  for (const ValueInfo& info : graph.values)
    out.push_back({info.type.dtype, local_shape(info.type.shape, info.type.placement, graph.mesh, rank), {}, info.type.routed});
  return out;
}

Types types_of(const Values& values, const std::vector<Type>& local) {
  Types out;
  for (const Value v : values) out.push_back(v ? &local[static_cast<std::size_t>(v.id)] : nullptr);
  return out;
}

std::vector<std::int64_t> strides_of(const CallTensor& tensor) {
  const Shape shape = tensor.type->stored();
  std::vector<std::int64_t> strides(shape.size(), 1);
  for (std::size_t d = shape.size(); d-- > 1;) strides[d - 1] = strides[d] * shape[d];
  if (tensor.pitch > 0) strides[1] = tensor.pitch / size_bytes(tensor.type->dtype), strides[0] = shape[1] * strides[1];
  return strides;
}

CallTensors call_tensors(const Values& values, const std::vector<Type>& local, const std::vector<std::int64_t>& pitches) {
  CallTensors out;
  for (const Value v : values) {
    const auto i = static_cast<std::size_t>(v.id);
    out.push_back(v ? CallTensor{&local[i], pitches.empty() ? 0 : pitches[i]} : CallTensor{});
  }
  return out;
}

std::string call_signature(const Node& node, const CallTensors& in, const CallTensors& out) {
  std::string text = std::string(node.op->name) + print(node.attrs);
  for (const auto* side : {&in, &out}) {
    text += side == &out ? " ->" : "";
    for (const auto& [type, pitch] : *side)
      text += (type ? " " + print(*type, Mesh{}) : " _") + (pitch > 0 ? fmt::format("/{}", pitch) : "");
  }
  return text;
}

const KernelRow* kernel_of_call(const Node& node, const Types& in, DeviceKind device, bool deterministic) {
  const KernelRow* row = select_kernel(*node.op, device, deterministic, node.attrs, in);
  SHEAF_CHECK(row || node.op->kernel, "{} has no kernel", node.op->name);
  return row;
}

static bool is_collective(const Graph& graph, const Node& node) { return is_move(*node.op) && !graph.mesh.atoms.empty(); }
// No kernel does it.
static bool has_own_way(const Graph& graph, const Node& node) {
  return is_collective(graph, node) || node.op->name == "pack" || (exchanges_rows(*node.op) && DynamicRows::touches(graph, node));
}

std::int64_t scratch_of_call(const Node& node, const KernelRow* row, const CallTensors& in, const CallTensors& out, DeviceKind device,
                             int device_index) {
  const at::Device at =
      device == DeviceKind::cpu ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device_index));
  const auto like = [&](const CallTensor& tensor) {
    if (!tensor.type) return at::Tensor();
    const auto options = at::TensorOptions().dtype(scalar_type(tensor.type->dtype)).device(at);
    const Shape shape = tensor.type->stored();
    if (tensor.pitch == 0) return at::zeros(shape, options);
    const std::vector<std::int64_t> strides = strides_of(tensor);
    return at::zeros({shape[0] * strides[0]}, options).as_strided(shape, strides);
  };
  std::vector<at::Tensor> from, to;
  for (const CallTensor& tensor : in) from.push_back(like(tensor));
  for (const CallTensor& tensor : out) to.push_back(like(tensor));
  const Args args{from, to, node.attrs, 0, 1};    // of what is owned by index, all zeros are of the first
  if (row && row->tune) row->tune(args);
  const ScratchScope scope(device, nullptr, 0);
  const auto launch = [&] {
    if (row)
      row->launch(args);
    else if (node.op->kernel)
      node.op->kernel(args);
  };
  launch();
  // Zeros are one document of the whole row. One that is a token shorter may take more: kernels pad an odd number of bf16 tokens.
  for (std::size_t i = 0; i < node.op->operands.size() && i < from.size(); ++i)
    if (node.op->operands[i] == "ends" && from[i].defined()) {
      from[i].fill_(from[0].size(1) - 1);
      launch();
    }
  // What the host composes of the documents that it reads takes no more at once than for whole rows, but leaves holes of other sizes.
  constexpr std::int64_t kHoles = 4;
  const bool composed = row && !row->capture_safe;
  return composed ? scope.peak() + scope.peak() / kHoles : scope.peak();
}

namespace {

// What all calls that are made as they are may take together: bytes of tensors, one call's, and flops. A few seconds of one core.
constexpr double kAllBytes = 6e9, kCallBytes = 1e9, kAllFlops = 60e9;
// What a call that stands for a larger one takes.
constexpr double kSmallBytes = 16e6, kSmallFlops = 4e8;

using Extents = std::map<std::string, std::int64_t>;    // by factor

// One kind of call, on pieces of a rank.
struct Kind {
  const Node* node;
  std::vector<Type> in, out;    // present operands
  std::vector<bool> present;
  Rule rule;
  Extents extents;

  Types types(const std::vector<Type>& of) const {
    Types list;
    std::size_t p = 0;
    for (std::size_t i = 0; i < present.size(); ++i) list.push_back(present[i] ? &of[p++] : nullptr);
    return list;
  }
  // The same call with other extents of its factors.
  Kind at(const Extents& other) const {
    Kind kind = *this;
    kind.extents = other;
    const auto set = [&](std::vector<Type>& types, const std::vector<Rule::Factors>& factors) {
      for (std::size_t i = 0; i < types.size(); ++i)
        for (std::size_t d = 0; d < factors[i].size(); ++d)
          if (const auto found = other.find(factors[i][d]); found != other.end()) types[i].shape[d] = found->second;
    };
    set(kind.in, rule.in);
    set(kind.out, rule.out);
    return kind;
  }
  double bytes() const {
    double sum = 0;
    for (const auto* side : {&in, &out})
      for (const Type& type : *side) sum += static_cast<double>(type.bytes());
    return sum;
  }
  double flops() const { return sheaf::flops(*node->op, node->attrs, types(in)); }
  std::optional<std::int64_t> on_gpu(bool deterministic) const {
    Types outputs;
    for (const Type& type : out) outputs.push_back(&type);
    return gpu_scratch(*node, types(in), outputs, deterministic);
  }
  std::int64_t scratch(bool deterministic) const {
    const Types operands = types(in);
    CallTensors from, to;
    for (const Type* type : operands) from.push_back({type});
    for (const Type& type : out) to.push_back({&type});
    return scratch_of_call(*node, kernel_of_call(*node, operands, DeviceKind::cpu, deterministic), from, to, DeviceKind::cpu, 0);
  }
};

Kind kind_of(const Graph& graph, const Node& node, const std::vector<Type>& local) {
  Kind kind{.node = &node};
  for (const Value v : node.in) {
    kind.present.push_back(bool(v));
    if (v) kind.in.push_back(local[static_cast<std::size_t>(v.id)]);
  }
  for (const Value v : node.out) kind.out.push_back(local[static_cast<std::size_t>(v.id)]);
  // Letters depend on the global types' dims; a flat piece has one dim, whatever the tensor has.
  const bool flat = std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return v && !graph.type(v).placement.flat.empty(); });
  kind.rule = flat ? rule_for(*node.op, node.attrs, kind.types(kind.in)) : rule_for(*node.op, node.attrs, graph.types(node.in));
  for (std::size_t i = 0; i < kind.in.size(); ++i)
    for (std::size_t d = 0; d < kind.rule.in[i].size(); ++d) kind.extents[kind.rule.in[i][d]] = kind.in[i].shape[d];
  return kind;
}

// Scratch is a sum of products of extents. Its growth with each factor is measured at small extents and taken for a power, at most linear:
// temporaries are copies of operands and outputs, or blocks of them. In 16 bits the CPU's matrix products pack their operands in blocks
// that follow no law, and no other device does that: the fp32 product stands for them, whose copies are twice as large.
std::int64_t extrapolated(const Kind& large, bool deterministic) {
  Kind small = large;
  double share = 1;
  if (large.node->op == &op(OpId::einsum) && size_bytes(large.in[0].dtype) == 2) {
    share = 0.5;
    for (auto* side : {&small.in, &small.out})
      for (Type& type : *side) type.dtype = DType::fp32;
  }
  while (small.bytes() > kSmallBytes || small.flops() > kSmallFlops) {
    Extents extents = small.extents;
    const auto longest = std::max_element(extents.begin(), extents.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
    if (longest == extents.end() || longest->second < 2) break;
    longest->second /= 2;
    small = small.at(extents);
  }
  const auto base = static_cast<double>(small.scratch(deterministic));
  if (base == 0) return 0;
  double estimate = base;
  for (const auto& [factor, extent] : small.extents) {
    const std::int64_t wanted = large.extents.at(factor);
    if (wanted == extent || extent < 2) continue;
    Extents halved = small.extents;
    halved[factor] = extent / 2;
    const auto less = static_cast<double>(std::max<std::int64_t>(1, small.at(halved).scratch(deterministic)));
    const double power =
        std::clamp(std::log(base / less) / std::log(static_cast<double>(extent) / static_cast<double>(extent / 2)), 0.0, 1.0);
    estimate *= std::pow(static_cast<double>(wanted) / static_cast<double>(extent), power);
  }
  return static_cast<std::int64_t>(share * estimate);
}

// What a collective's scratch depends on: the placements, not which tensor it is.
std::string collective_signature(const Graph& graph, const Node& node) {
  std::string text(node.op->name);
  for (std::size_t i = 0; i < node.in.size(); ++i)
    text += " " + print(graph.type(node.in[i]), graph.mesh) + " > " + print(graph.type(node.out[i]), graph.mesh);
  return text;
}

}    // namespace

ChosenKernels choose_kernels(const Graph& graph, const std::vector<Type>& local, DeviceKind device, bool deterministic) {
  ChosenKernels kernels;
  for (const Segment s : kSegments)
    for (const Node& node : graph.nodes(s)) {
      const KernelRow* row = nullptr;
      if (!has_own_way(graph, node)) row = kernel_of_call(node, types_of(node.in, local), device, deterministic);
      kernels.rows[static_cast<std::size_t>(s)].push_back(row);
      kernels.columns[static_cast<std::size_t>(s)].push_back(row ? row->columns : ColumnMask{});
    }
  return kernels;
}

ScratchBytes measure_scratch(const Graph& graph, const std::vector<Type>& local, const ChosenKernels& kernels, DeviceKind device,
                             int device_index, KnownScratch& known) {
  const std::vector<std::int64_t> pitches = Storage(graph, kernels.columns).pitches();
  ScratchBytes bytes;
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      std::int64_t& most = bytes[static_cast<std::size_t>(s)].emplace_back(0);
      if (has_own_way(graph, node) || DynamicRows::touches(graph, node)) continue;
      const CallTensors in = call_tensors(node.in, local, pitches), out = call_tensors(node.out, local, pitches);
      const auto [entry, fresh] = known.emplace(call_signature(node, in, out), 0);
      if (fresh) entry->second = scratch_of_call(node, kernels.rows[static_cast<std::size_t>(s)][n], in, out, device, device_index);
      most = entry->second;
    }
  return bytes;
}

namespace {

// Where the run's device is not at hand.
ScratchBytes estimated(const Graph& graph, const std::vector<Type>& local, const ScratchPlanOptions& options, bool& measured) {
  ScratchBytes bytes;
  std::map<std::string, std::pair<Kind, std::vector<std::int64_t*>>> kinds;    // and where their bytes belong
  for (const Segment s : kSegments) {
    auto& list = bytes[static_cast<std::size_t>(s)];
    list.resize(graph.nodes(s).size());
    for (std::size_t n = 0; n < list.size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      if (has_own_way(graph, node) || DynamicRows::touches(graph, node) || node.op->view) continue;    // of a view a copy at most
      const std::string signature = call_signature(node, call_tensors(node.in, local), call_tensors(node.out, local));
      auto found = kinds.find(signature);
      if (found == kinds.end())
        found = kinds.emplace(signature, std::pair(kind_of(graph, node, local), std::vector<std::int64_t*>())).first;
      found->second.second.push_back(&list[n]);
    }
  }
  double all_bytes = 0, all_flops = 0, most = 0;
  for (const auto& [text, kind] : kinds) {
    all_bytes += kind.first.bytes(), all_flops += kind.first.flops();
    most = std::max(most, kind.first.bytes());
  }
  const bool as_they_are = !options.extrapolate && all_bytes <= kAllBytes && all_flops <= kAllFlops && most <= kCallBytes;
  measured = as_they_are && options.device == DeviceKind::cpu;
  const auto of = [&](const Kind& kind) {
    if (options.device == DeviceKind::cuda)
      if (const auto known = kind.on_gpu(options.deterministic)) return *known;
    const bool as_it_is = as_they_are || (kind.bytes() <= kSmallBytes && kind.flops() <= kSmallFlops);
    return as_it_is ? kind.scratch(options.deterministic) : extrapolated(kind, options.deterministic);
  };
  for (const auto& [text, kind] : kinds) {
    KnownScratch own;
    const auto [entry, fresh] = (options.known ? *options.known : own).emplace(text, 0);
    if (fresh) entry->second = of(kind.first);
    for (std::int64_t* at : kind.second) *at = entry->second;
  }
  return bytes;
}

}    // namespace

ScratchPlan plan_scratch(const Graph& graph, const ScratchPlanOptions& options) {
  install_scratch_allocators();
  const c10::InferenceMode no_tape;
  const std::vector<Type> local = local_types(graph, options.rank);
  ScratchPlan plan;
  if (options.gpu >= 0) {
    ChosenKernels kernels = choose_kernels(graph, local, options.device, options.deterministic);
    KnownScratch own;
    plan.bytes = measure_scratch(graph, local, kernels, options.device, options.gpu, options.known ? *options.known : own);
    plan.columns = std::move(kernels.columns);
  } else {
    plan.bytes = estimated(graph, local, options, plan.measured);
  }
  NullTransport transport(static_cast<int>(options.rank), static_cast<int>(graph.mesh.num_ranks()), options.device == DeviceKind::cuda);
  std::map<std::string, std::int64_t> known;
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      if (!is_collective(graph, node) || DynamicRows::touches(graph, node)) continue;
      const auto [entry, fresh] = known.emplace(collective_signature(graph, node), 0);
      if (fresh) entry->second = Collective(graph, node, transport, "", DeviceKind::cpu, Collective::Sums::small).scratch_bytes();
      plan.bytes[static_cast<std::size_t>(s)][n] = entry->second;
    }
  return plan;
}

}    // namespace sheaf
