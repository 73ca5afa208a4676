#include "runtime/executor.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/fill.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <deque>
#include <map>
#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "ops/aten.h"
#include "ops/op_table.h"
#include "runtime/device.h"
#include "runtime/dynamic_rows.h"
#include "runtime/scratch.h"
#include "runtime/scratch_plan.h"
#include "runtime/segment_graphs.h"
#include "runtime/side_stream.h"
#include "runtime/step_slots.h"

namespace sheaf {
namespace {

at::Device at_device(const ExecutorOptions& o) {
  return o.device == DeviceKind::cpu ? at::Device(at::kCPU) : at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(o.device_index));
}

// What the messages of ranks that wait in vain say.
std::string purpose(const Graph& graph, const Node& node, Segment segment, std::size_t n) {
  std::string of;
  for (const Value v : node.in)
    if (!graph[v].name.empty()) of += (of.empty() ? " of @" : ", @") + graph[v].name;
  return fmt::format("{}{} ({}, node {}{})", node.op->name, of, name(segment), n, node.note.empty() ? "" : ": " + node.note);
}

}    // namespace

struct Executor::Impl {
  Graph graph;
  ExecutorOptions options;
  MemoryPlan memory;
  // What the constructor and steps run on: not the default stream, which cannot be captured. One for executors beside each other, so that
  // what they share is used in order.
  c10::Stream stream;
  Calls calls;
  at::Tensor persistent, arena;    // bytes
  at::Tensor shared;               // the persistent block of the executor beside
  bool owns_arena = true;
  std::vector<Type> local;    // by Value::id: what this rank holds
  std::deque<Collective> collectives;
  std::unique_ptr<SideStream> side;    // where collectives run beside the rest; none on the CPU
  std::vector<at::Tensor> views;       // by Value::id
  std::optional<DynamicRows> dynamic;
  std::int64_t num_micro_batches = 1;
  std::optional<StepSlots> slots;
  std::int64_t micro_batch = 0;    // that `rest` is at
  bool timing = false;
  std::optional<CallTimer> timer;         // once calls were timed
  std::optional<SegmentGraphs> graphs;    // last: they go before what they work on

  explicit Impl(const ExecutorOptions& o) : options(o), stream(stream_of(o)) {}
  static c10::Stream stream_of(const ExecutorOptions& o);
  std::int64_t rank() const { return options.transport ? options.transport->rank() : 0; }
  const Type& local_type(Value v) const { return local[static_cast<std::size_t>(v.id)]; }
  void make_calls(const ChosenKernels& kernels);
  ScratchBytes measure(const ChosenKernels& kernels);
  SharedStorage shared_storage() const;
  void allocate();
  void bind();
  void bind_gaps(Call& call);
  void launch_in_slot(Call& call);
  void run(Segment segment);
  void run_calls(Segment segment);
  template <class Work>
  void timed(Segment segment, std::size_t n, Track track, const Work& work);
};

void Executor::Impl::make_calls(const ChosenKernels& kernels) {
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n) {
      const Node& node = graph.nodes(s)[n];
      Call call{.node = &node, .row = kernels.rows[static_cast<std::size_t>(s)][n], .dynamic = DynamicRows::touches(graph, node)};
      if (exchanges_rows(*node.op) && call.dynamic)
        dynamic->add_exchange(node, *options.transport, purpose(graph, node, s, n));
      else if (is_move(*node.op) && options.transport)
        call.collective = &collectives.emplace_back(graph, node, *options.transport, purpose(graph, node, s, n), options.device);
      else if (node.op->name != "pack")
        call.owned = owned_piece(rule_for(*node.op, node.attrs, graph.types(node.in)), graph.types(node.in), graph.types(node.out),
                                 graph.mesh, rank());
      calls[static_cast<std::size_t>(s)].push_back(std::move(call));
    }
}

ScratchBytes Executor::Impl::measure(const ChosenKernels& kernels) {
  KnownScratch known;
  ScratchBytes scratch = measure_scratch(graph, local, kernels, options.device, options.device_index, known);
  for (const Segment s : kSegments)
    for (std::size_t n = 0; n < graph.nodes(s).size(); ++n)
      if (const Call& call = calls[static_cast<std::size_t>(s)][n]; call.collective)
        scratch[static_cast<std::size_t>(s)][n] = call.collective->scratch_bytes();
  return scratch;
}

// States of the executor beside that this graph reads under the same name, or that are the copy of such a one.
SharedStorage Executor::Impl::shared_storage() const {
  SharedStorage storage;
  if (!options.beside) return storage;
  const Graph& theirs = options.beside->graph();
  for (const Value v : graph.all(ValueKind::state))
    for (const char* suffix : {"", ".c"}) {
      const Value w = theirs.find(graph[v].name + suffix);
      if (!w || theirs[w].kind != ValueKind::state || theirs.type(w).dtype != graph.type(v).dtype) continue;
      if (!same(theirs.type(w).placement, graph.type(v).placement)) continue;
      SHEAF_CHECK(theirs.type(w).shape == graph.type(v).shape, "@{} has two shapes", graph[v].name);
      storage.emplace(v, options.beside->memory().places[static_cast<std::size_t>(w.id)].offset);
    }
  return storage;
}

void Executor::Impl::allocate() {
  const auto bytes = at::TensorOptions().dtype(at::kByte).device(at_device(options));
  const Impl* beside = options.beside ? options.beside->impl_.get() : nullptr;
  if (beside) shared = beside->persistent;
  owns_arena = !beside || beside->arena.numel() < memory.arena_bytes;
  try {
    persistent = at::zeros({std::max<std::int64_t>(1, memory.persistent_bytes)}, bytes);
    if (!owns_arena) {
      arena = beside->arena;
      return;
    }
    // LibTorch's CUDA hook knows its blocks by address and takes no second one at the same: a slot at the start of the arena would free it.
    constexpr std::int64_t kHead = 256;
    arena = at::empty({kHead + std::max<std::int64_t>(1, memory.arena_bytes)}, bytes)
                .narrow(0, kHead, std::max<std::int64_t>(1, memory.arena_bytes));
    if (options.poison) arena.fill_(0xff);
  } catch (const std::exception& error) {
    const std::string what = error.what();
    user_error(
        "the plan does not fit on {}: {} for states and inputs, {} for a step; lower train_micro_batch_size_per_gpu or data.seq_len\n{}",
        name(options.device), human_bytes(static_cast<double>(memory.persistent_bytes)),
        human_bytes(static_cast<double>(memory.arena_bytes)), what.substr(0, what.find('\n')));
  }
}

void Executor::Impl::bind() {
  for (std::size_t i = 0; i < graph.values.size(); ++i) {
    const Place& place = memory.places[i];
    if (place.offset < 0) continue;
    const Type& type = graph.values[i].type;
    const at::Tensor& block = place.block == Block::persistent ? persistent : place.block == Block::shared ? shared : arena;
    char* base = static_cast<char*>(block.data_ptr());
    const Shape shape = local[i].stored();
    views[i] = at::from_blob(base + place.offset, shape, strides_of({&local[i], place.pitch}),
                             at::TensorOptions().dtype(scalar_type(type.dtype)).device(at_device(options)));
  }
  const auto view = [&](Value v) { return v ? views[static_cast<std::size_t>(v.id)] : at::Tensor(); };
  for (const Segment s : kSegments) {
    auto& list = calls[static_cast<std::size_t>(s)];
    for (std::size_t n = 0; n < list.size(); ++n) {
      for (const Value v : list[n].node->in) list[n].in.push_back(view(v));
      for (const Value v : list[n].node->out) list[n].out.push_back(view(v));
      const NodeMemory& scratch = memory.nodes[static_cast<std::size_t>(s)][n];
      list[n].scratch = static_cast<char*>(arena.data_ptr()) + scratch.scratch_offset;
      list[n].scratch_bytes = scratch.scratch_bytes;
      list[n].decides = dynamic->decides(*list[n].node);
      list[n].stored = is_stored(graph, memory, *list[n].node);
      if (list[n].node->op->name == "pack") bind_gaps(list[n]);
    }
    const std::vector<int> waited = waited_at(graph.nodes(s));
    for (std::size_t n = 0; n < list.size(); ++n)
      if (waited[n] >= 0 && static_cast<std::size_t>(waited[n]) < list.size())
        list[static_cast<std::size_t>(waited[n])].awaits.push_back(n);
  }
  for (const auto& info : graph.values)
    if (info.kind == ValueKind::constant) {
      at::Tensor host = at::empty(info.type.shape, at::kDouble);
      std::copy(info.data.begin(), info.data.end(), host.data_ptr<double>());
      views[static_cast<std::size_t>(graph.find(info.name).id)].copy_(host);
    }
}

// The gaps of a persistent pack are zero from the start and stay so; those of the arena hold what an earlier value left.
void Executor::Impl::bind_gaps(Call& call) {
  const Place& pack = memory.places[static_cast<std::size_t>(call.node->out[0].id)];
  if (pack.block == Block::persistent) return;
  std::int64_t end = pack.offset;
  const auto zero_from = [&](std::int64_t begin, std::int64_t to) {
    if (begin < to) call.gaps.push_back(arena.narrow(0, begin, to - begin));
  };
  for (const Value v : call.node->in) {
    const std::int64_t begin = memory.places[static_cast<std::size_t>(v.id)].offset;
    zero_from(end, begin);
    end = begin + local_type(v).bytes();
  }
  zero_from(end, pack.offset + local_type(call.node->out[0]).bytes());
}

void Executor::Impl::launch_in_slot(Call& call) {
  const ScratchScope scope(options.device, call.scratch, call.scratch_bytes);
  call.launch();
  SHEAF_CHECK(scope.empty(), "{} ({}) keeps memory of its scratch slot after its call", call.node->op->name, call.kernel());
}

c10::Stream Executor::Impl::stream_of(const ExecutorOptions& o) {
  check_device(o.device);
  install_scratch_allocators();
  return o.beside ? o.beside->impl_->stream : c10::impl::VirtualGuardImpl(at_device(o).type()).getNewStream(at_device(o));
}

void Executor::Impl::run(Segment segment) {
  timing ? run_calls(segment) : graphs->run(segment, [&] { run_calls(segment); });
}

template <class Work>
void Executor::Impl::timed(Segment segment, std::size_t n, Track track, const Work& work) {
  if (!timing) return work();
  const std::string_view kernel = track == Track::waits ? "" : calls[static_cast<std::size_t>(segment)][n].kernel();
  timer->run({segment, n, kernel, track, micro_batch}, work);
}

void Executor::Impl::run_calls(Segment segment) {
  auto& list = calls[static_cast<std::size_t>(segment)];
  dynamic->begin();
  for (std::size_t n = 0; n < list.size(); ++n) {
    Call& call = list[n];
    if (!call.launches()) continue;
    if (side && !call.awaits.empty())
      timed(segment, n, Track::waits, [&] {
        for (const std::size_t other : call.awaits) side->wait_for(other);
      });
    if (call.collective && !call.dynamic) {
      const bool beside = side && communicates(*call.node);    // nothing waits for the local ones
      const auto run = [&] {
        timed(segment, n, beside ? Track::collectives : Track::main, [&] { call.collective->run(call.in, call.out, call.scratch); });
      };
      beside ? side->run(n, run) : run();
    } else {
      try {
        timed(segment, n, Track::main, [&] { call.dynamic ? dynamic->run(call, segment, n) : launch_in_slot(call); });
      } catch (const RankFailure&) {
        throw;
      } catch (const std::exception& error) {
        const std::string what = error.what();
        SHEAF_CHECK(false, "{}, node {} ({} by {}): {}", name(segment), n, call.node->op->name, call.kernel(),
                    what.substr(0, what.find('\n')));
      }
    }
    if (call.decides) dynamic->announce(*call.node, segment);
  }
  if (side) timed(segment, list.size(), Track::waits, [&] { side->wait_for_all(); });
}

Executor::Executor(Graph graph, const ExecutorOptions& options) : impl_(std::make_unique<Impl>(options)) {
  const c10::InferenceMode no_tape;
  const c10::StreamGuard on_stream(impl_->stream);
  take_lasting_workspaces(options.device, options.device_index);
  Impl& m = *impl_;
  m.graph = std::move(graph);
  SHEAF_CHECK(m.graph.mesh.atoms.empty() || (options.transport && options.transport->size() == m.graph.mesh.num_ranks()),
              "a graph for {} ranks, a transport for {}", m.graph.mesh.num_ranks(), options.transport ? options.transport->size() : 1);
  m.local = sheaf::local_types(m.graph, m.rank());
  for (const Value v : m.graph.all(ValueKind::input)) m.num_micro_batches = m.graph.type(v).shape[0];
  m.views.resize(m.graph.values.size());
  if (options.transport && options.device == DeviceKind::cuda) m.side = make_side_stream(options.device_index);
  m.dynamic.emplace(m.graph, m.local, m.views, at_device(options), options.poison, options.transport, m.side.get());
  const ChosenKernels kernels = choose_kernels(m.graph, m.local, options.device, options.deterministic);
  m.make_calls(kernels);
  m.memory = plan_memory(m.graph, m.measure(kernels), m.shared_storage(), kernels.columns);
  verify_memory(m.graph, m.memory);
  m.allocate();
  m.bind();
  m.slots.emplace(m.graph, m.persistent, m.num_micro_batches);
  m.graphs.emplace(options.cuda_graphs, options.device, options.transport, m.calls);
  for (const Collective& collective : m.collectives)
    for (const Group& group : collective.groups()) options.transport->prepare(group);
  for (const Group& group : m.dynamic->groups()) options.transport->prepare(group);
}
Executor::~Executor() = default;

std::int64_t Executor::rank() const { return impl_->rank(); }
Shape Executor::local_shape(Value v) const { return impl_->local_type(v).shape; }
std::int64_t Executor::local_bytes(Value v) const { return impl_->local_type(v).bytes(); }

const Graph& Executor::graph() const { return impl_->graph; }
const MemoryPlan& Executor::memory() const { return impl_->memory; }
std::int64_t Executor::num_micro_batches() const { return impl_->num_micro_batches; }

void Executor::write(Value v, const void* from, std::int64_t bytes) {
  const c10::InferenceMode no_tape;
  const c10::StreamGuard on_stream(impl_->stream);
  at::Tensor& view = impl_->views[static_cast<std::size_t>(v.id)];
  SHEAF_CHECK(bytes == local_bytes(v), "{} has {} bytes, {} were given", name_of(impl_->graph, v), local_bytes(v), bytes);
  view.copy_(at::from_blob(const_cast<void*>(from), view.sizes(), view.options().device(at::kCPU)));
}

void Executor::read(Value v, void* to, std::int64_t bytes) const {
  const c10::InferenceMode no_tape;
  const c10::StreamGuard on_stream(impl_->stream);
  const at::Tensor& view = impl_->views[static_cast<std::size_t>(v.id)];
  SHEAF_CHECK(bytes == local_bytes(v), "{} has {} bytes, {} were wanted", name_of(impl_->graph, v), local_bytes(v), bytes);
  at::from_blob(to, view.sizes(), view.options().device(at::kCPU)).copy_(view);
}

void Executor::set_argument(std::string_view name, double value) { impl_->slots->set(name, value); }
double Executor::metric(std::string_view name) const { return impl_->slots->metric(name); }

// The host runs ahead of the device: it waits for nothing but the metrics, which come last.
void Executor::run_step() {
  const c10::InferenceMode no_tape;
  Impl& m = *impl_;
  const c10::StreamGuard on_stream(m.stream);
  take_lasting_workspaces(m.options.device, m.options.device_index);    // again: the thread may be another one than the constructor's
  if (m.timing) m.timer->begin_step();
  m.graphs->begin_step();
  m.slots->give_arguments();
  m.run(Segment::prologue);
  m.run(Segment::first);
  for (m.micro_batch = 1; m.micro_batch < m.num_micro_batches; ++m.micro_batch) {
    m.slots->give_micro_batch(m.micro_batch);
    m.run(Segment::rest);
  }
  m.micro_batch = 0;
  m.run(Segment::epilogue);
  if (m.options.transport) m.options.transport->wait();    // with a time limit, which a copy has not
  m.slots->take_metrics();
  if (m.timing) m.timer->end_step();
}

std::int64_t Executor::planned_bytes() const {
  return impl_->memory.persistent_bytes + (impl_->owns_arena ? impl_->memory.arena_bytes : 0);
}
std::int64_t Executor::peak_bytes() const {
  return impl_->persistent.numel() + (impl_->owns_arena ? impl_->arena.numel() : 0) + impl_->dynamic->peak_bytes();
}

std::string Executor::describe() const {
  std::vector<std::vector<std::string>> rows = {{"segment", "op", "kernel", "out", "scratch"}};
  for (const Segment s : kSegments)
    for (const Call& call : impl_->calls[static_cast<std::size_t>(s)]) {
      std::vector<std::string> out;
      for (const Value v : call.node->out) {
        const Place& p = impl_->memory.places[static_cast<std::size_t>(v.id)];
        out.push_back(fmt::format("{} {} at {}{}", name_of(impl_->graph, v), print(impl_->local_type(v), Mesh{}),
                                  p.block == Block::arena    ? "arena+"
                                  : p.block == Block::shared ? "beside+"
                                                             : "state+",
                                  p.offset));
      }
      rows.push_back({std::string(name(s)), std::string(call.node->op->name), std::string(call.kernel()), join(out, ", "),
                      human_bytes(static_cast<double>(call.scratch_bytes))});
    }
  return table(rows);
}

std::string Executor::graphs() const { return impl_->graphs->text(); }
void Executor::time_calls(bool on) {
  impl_->timing = on;
  if (on && !impl_->timer) impl_->timer.emplace(impl_->options.device);
}
const std::vector<CallTime>& Executor::call_times() const {
  SHEAF_CHECK(impl_->timer, "no calls were timed");
  return impl_->timer->times();
}

}    // namespace sheaf
