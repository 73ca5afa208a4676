// A whole training step on simulated ranks, run in lock-step in one thread, against the same step on one: integer mode, so every value of
// the graph must be equal to the bit, whatever the mesh.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "base/error.h"
#include "models/model.h"
#include "passes/pass.h"
#include "runtime/interpret.h"

using namespace sheaf;

namespace {

using Pieces = std::vector<at::Tensor>;    // per rank

class LockStep {
 public:
  explicit LockStep(const Graph& graph) : graph_(graph), ranks_(graph.mesh.num_ranks()) {
    for (const Value v : graph.all(ValueKind::constant)) {
      at::Tensor t = at::empty(graph.type(v).shape, at::kDouble);
      std::copy(graph[v].data.begin(), graph[v].data.end(), t.data_ptr<double>());
      give(v, t.to(at::kLong));
    }
  }
  void give(Value v, const at::Tensor& whole) { pieces_[v.id] = cut(whole, graph_.type(v).placement); }

  void run(Segment segment) {
    for (const Node& node : graph_.nodes(segment))
      if (node.op->name == "reshard")
        pieces_[node.out[0].id] = cut(whole(node.in[0]), graph_.type(node.out[0]).placement);
      else
        run(node);
  }

  // The tensor that the pieces denote. Replicas that differ are a failure.
  at::Tensor whole(Value v) const {
    const Type& type = graph_.type(v);
    const Pieces& pieces = pieces_.at(v.id);
    const bool max = type.placement.reduction == Reduction::max && type.placement.partial != 0;
    at::Tensor out = at::full(type.shape, max ? std::numeric_limits<std::int64_t>::min() : 0, at::kLong);
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      const std::int64_t first = without_replicas(rank, type.placement);
      if (first != rank) {
        EXPECT_TRUE(piece_of(pieces, rank).equal(piece_of(pieces, first))) << name_of(graph_, v) << ": replicas differ";
        continue;
      }
      at::Tensor part = slice(out, type.placement, rank);
      part.copy_(max ? at::maximum(part, piece_of(pieces, rank)) : part.add(piece_of(pieces, rank)));
    }
    return out;
  }

 private:
  static const at::Tensor& piece_of(const Pieces& pieces, std::int64_t rank) { return pieces[static_cast<std::size_t>(rank)]; }
  at::Tensor slice(at::Tensor t, const Placement& placement, std::int64_t rank) const {
    const auto box = local_box(t.sizes().vec(), placement, graph_.mesh, rank);
    for (std::size_t d = 0; d < box.size(); ++d) t = t.slice(static_cast<std::int64_t>(d), box[d].first, box[d].second);
    return t;
  }
  // The rank with the same coordinates on the atoms that cut or are partial, 0 on all others.
  std::int64_t without_replicas(std::int64_t rank, const Placement& placement) const {
    std::int64_t first = 0;
    for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a) {
      bool matters = placement.partial >> a & 1;
      for (const auto& atoms : placement.dims) matters |= std::find(atoms.begin(), atoms.end(), a) != atoms.end();
      first = first * graph_.mesh.atoms[a].size + (matters ? graph_.mesh.coordinate(rank, static_cast<Atom>(a)) : 0);
    }
    return first;
  }
  // Partial: coordinate 0 has the value, the others 0.
  Pieces cut(const at::Tensor& whole, const Placement& placement) const {
    Pieces pieces;
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      bool holds = true;
      for (std::size_t a = 0; a < graph_.mesh.atoms.size(); ++a)
        holds &= !(placement.partial >> a & 1) || graph_.mesh.coordinate(rank, static_cast<Atom>(a)) == 0;
      const at::Tensor piece = slice(whole.to(at::kLong), placement, rank).contiguous();
      pieces.push_back(holds ? piece.clone() : at::zeros(piece.sizes(), at::kLong));
    }
    return pieces;
  }

  void run(const Node& node) {
    const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
    for (std::int64_t rank = 0; rank < ranks_; ++rank) {
      std::vector<at::Tensor> in, out;
      std::int64_t owner_begin = 0;
      std::size_t p = 0;
      for (const Value v : node.in) {
        in.push_back(v ? piece_of(pieces_.at(v.id), rank) : at::Tensor());
        if (!v) continue;
        const Type& type = graph_.type(v);
        const auto box = local_box(type.shape, type.placement, graph_.mesh, rank);
        for (std::size_t d = 0; d < rule.in[p].size(); ++d)
          if (rule.owner.contains(rule.in[p][d])) owner_begin = box[d].first;
        ++p;
      }
      for (const Value v : node.out)
        out.push_back(at::empty(local_shape(graph_.type(v).shape, graph_.type(v).placement, graph_.mesh, rank), at::kLong));
      integer_kernel(*node.op, rule, Args{in, out, node.attrs, owner_begin});
      for (std::size_t o = 0; o < out.size(); ++o) {
        Pieces& pieces = pieces_[node.out[o].id];
        pieces.resize(static_cast<std::size_t>(ranks_));
        pieces[static_cast<std::size_t>(rank)] = out[o];
      }
    }
  }

  const Graph& graph_;
  std::int64_t ranks_;
  std::map<int, Pieces> pieces_;
};

// The plan that the configurations of these families name, and the vocabulary over tp.
constexpr const char* kPlan =
    "layers.*.self_attn.q_proj colwise; layers.*.self_attn.k_proj colwise; layers.*.self_attn.v_proj colwise; "
    "layers.*.self_attn.o_proj rowwise; layers.*.mlp.gate_proj colwise; layers.*.mlp.up_proj colwise; layers.*.mlp.down_proj rowwise; "
    "embed_tokens embedding_rowwise";

struct Shapes {
  std::int64_t heads, kv_heads, rows = 4, seq = 6, documents = 0;
  bool bias = false, tied = false;
  std::int64_t micro_batches = 1;
};

Graph step_of(const Shapes& shapes, const std::string& mesh) {
  const Json config = {{"model_type", shapes.bias ? "qwen2" : "qwen3"},
                       {"vocab_size", 17},
                       {"hidden_size", 8},
                       {"intermediate_size", 10},
                       {"num_hidden_layers", 1},
                       {"num_attention_heads", shapes.heads},
                       {"num_key_value_heads", shapes.kv_heads},
                       {"head_dim", 4},
                       {"max_position_embeddings", 64},
                       {"tie_word_embeddings", shapes.tied},
                       {"rms_norm_eps", 1e-6}};
  Graph graph = build_model(config, {.rows = shapes.rows, .seq_len = shapes.seq, .documents = shapes.documents}, DType::fp32);
  std::vector<Pass> passes = training_passes();
  std::erase_if(passes, [](const Pass& pass) { return pass.name == "flatten"; });    // storage
  Options options;
  options.num_micro_batches = shapes.micro_batches;
  options.mesh = mesh;
  options.tp_plan = std::string(kPlan) + (shapes.tied ? "" : "; lm_head colwise_gather_output");
  return RunPasses{}(std::move(graph), passes, options);
}

at::Tensor input(const std::string& name, const Shape& shape, std::mt19937_64& rng) {
  at::Tensor t = at::empty(shape, at::kLong);
  for (std::int64_t i = 0; i < t.numel(); ++i) {
    const auto r = static_cast<std::int64_t>(rng());
    t.data_ptr<std::int64_t>()[i] = name == "ids" ? (r & 1023) % 17 : name == "labels" ? ((r & 3) == 0 ? -100 : (r & 1023) % 17) : r;
  }
  return name == "document_ends" ? at::full(shape, 2, at::kLong) : t;
}

// Every value of the step on the mesh equals that of the step on one rank. Returns how many reshards there are.
std::size_t expect_equal(const Shapes& shapes, const std::string& mesh) {
  const Graph one = step_of(shapes, ""), placed = step_of(shapes, mesh);
  Interpreter expected(one, Numbers::integer);
  LockStep ranks(placed);
  std::mt19937_64 rng(7);
  for (const ValueKind kind : {ValueKind::input, ValueKind::state, ValueKind::argument, ValueKind::carried})
    for (const Value v : one.all(kind)) {
      const std::string& name = one[v].name;
      const at::Tensor t = name == "step.micro_batch" ? at::zeros({}, at::kLong) : input(name, one.type(v).shape, rng);
      expected.give(v, t.clone());
      ranks.give(placed.find(name), t);
    }
  std::size_t reshards = 0;
  for (const Segment segment : kSegments) {
    if (segment == Segment::rest)
      for (const auto& [graph, give] :
           {std::pair<const Graph*, std::function<void(Value, at::Tensor)>>{&one, [&](Value v, at::Tensor t) { expected.give(v, t); }},
            {&placed, [&](Value v, at::Tensor t) { ranks.give(v, t); }}})
        give(graph->find("step.micro_batch"), at::full({}, 1, at::kLong));
    expected.run(segment);
    ranks.run(segment);
    auto there = placed.nodes(segment).begin();
    const auto skip_reshards = [&] {
      for (; there != placed.nodes(segment).end() && there->op->name == "reshard"; ++there) ++reshards;
    };
    for (const Node& node : one.nodes(segment)) {
      skip_reshards();
      if (there == placed.nodes(segment).end() || there->op != node.op) {
        ADD_FAILURE() << mesh << ": the placed graph has other nodes";
        return 0;
      }
      for (std::size_t o = 0; o < node.out.size(); ++o)
        if (!ranks.whole(there->out[o]).equal(expected[node.out[o]])) {
          ADD_FAILURE() << mesh << ": " << name_of(placed, there->out[o]) << " = " << node.op->name << " differs\n" << print(placed);
          return 0;
        }
      ++there;
    }
    skip_reshards();
  }
  return reshards;
}

}    // namespace

TEST(Placed, every_value_of_a_step_is_the_same_on_any_mesh) {
  const char* meshes[] = {
      "mesh a0=2    axes dp=a0",
      "mesh a0=2    axes tp=a0",
      "mesh a0=2    axes sp=a0",
      "mesh a0=3    axes tp=a0",
      "mesh a1=2 a0=2    axes dp=a1 tp=a0",
      "mesh a1=2 a0=2    axes dp=a1 sp=a0",
      "mesh a1=2 a0=2    axes sp=a1 tp=a0",
      "mesh a1=2 a0=2    axes tp=a1.a0",
      "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0",
      "mesh a3=2 a2=2 a1=2 a0=2    axes dp=a3 sp=a2 tp=a1.a0",
  };
  for (const char* mesh : meshes)
    for (const Shapes& shapes : {Shapes{.heads = 8, .kv_heads = 4}, Shapes{.heads = 4, .kv_heads = 2, .bias = true, .micro_batches = 2},
                                 Shapes{.heads = 4, .kv_heads = 1, .documents = 2, .tied = true}, Shapes{.heads = 3, .kv_heads = 3}}) {
      SCOPED_TRACE(fmt::format("{}, {} heads, {} kv heads", mesh, shapes.heads, shapes.kv_heads));
      EXPECT_GT(expect_equal(shapes, mesh), 0u);
    }
}
