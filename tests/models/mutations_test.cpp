// Tests of the test: what a wrong partitioner would do is caught. Each kind of mistake, at every move of a step that it can befall, on the
// stages of ZeRO; by the comparison of values, and where the mistake is one of the graph, by the verifier too.
#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <set>

#include "models/random_step.h"
#include "ops/op_table.h"

using namespace sheaf;
using namespace sheaf::testing;

namespace {

RandomStep step_of_stage(std::int64_t stage, std::int64_t micro_batches, DType compute = DType::fp32) {
  RandomStep step{.seed = 3,
                  .config = {{"model_type", "llama"},
                             {"vocab_size", 17},
                             {"hidden_size", 9},
                             {"intermediate_size", 10},
                             {"num_hidden_layers", 1},
                             {"num_attention_heads", 4},
                             {"num_key_value_heads", 2},
                             {"head_dim", 4},
                             {"max_position_embeddings", 64},
                             {"attention_bias", true}},
                  .shape = {.rows = 4, .seq_len = 6},
                  .compute = compute,
                  .options = {}};
  step.options.mesh = "mesh a2=2 a1=2 a0=2    axes dp=a2 sp=a1 tp=a0";
  step.options.tp_plan =
      "layers.*.self_attn.q_proj colwise; layers.*.self_attn.k_proj colwise; layers.*.self_attn.v_proj colwise; "
      "layers.*.self_attn.o_proj rowwise; layers.*.mlp.gate_proj colwise; layers.*.mlp.up_proj colwise; layers.*.mlp.down_proj rowwise; "
      "embed_tokens embedding_rowwise; ";
  // With a whole head the logits stay cut by tokens, and labels are sliced to meet them.
  step.options.tp_plan += stage == 0 ? "lm_head colwise" : "lm_head replicated";
  step.options.zero_stage = stage;
  step.options.gather_bucket = step.options.reduce_bucket = step.options.update_bucket = 1000;
  step.options.num_micro_batches = micro_batches;
  return step;
}

// What goes wrong with one operand of one move. Gets what came in and what should come out.
struct Site {
  const LockStep& ranks;
  const Type &from, &to;
  const Pieces& in;
  const Pieces& right;
};
using Mistake = std::function<Pieces(const Site&)>;

// The atoms that leave the cut, and the dim (flat: the one behind the last).
std::pair<std::vector<Atom>, std::size_t> gathered(const Site& site) {
  const std::size_t ndim = site.from.shape.size();
  for (std::size_t d = 0; d <= ndim; ++d) {
    const auto &before = d < ndim ? site.from.placement.dim(d) : site.from.placement.flat,
               &after = d < ndim ? site.to.placement.dim(d) : site.to.placement.flat;
    if (before.size() > after.size()) return {{before.begin() + static_cast<std::ptrdiff_t>(after.size()), before.end()}, d};
  }
  return {};
}
// Pieces side by side in another order than they were cut.
Pieces gather_in_order(const Site& site,
                       const std::function<std::vector<std::int64_t>(std::int64_t rank, const std::vector<Atom>&)>& order) {
  const auto [over, dim] = gathered(site);
  const bool flat = dim == site.from.shape.size();
  Pieces out;
  for (std::int64_t rank = 0; rank < site.ranks.num_ranks(); ++rank) {
    std::vector<at::Tensor> pieces;
    for (const std::int64_t peer : order(rank, over)) pieces.push_back(site.in[static_cast<std::size_t>(peer)]);
    const at::Tensor& right = site.right[static_cast<std::size_t>(rank)];
    out.push_back(at::cat(pieces, flat ? 0 : static_cast<std::int64_t>(dim)).view(right.sizes()));
  }
  return out;
}
// The group in the order of the reversed atoms.
std::vector<std::int64_t> reversed_suffix(const LockStep& ranks, std::int64_t rank, std::vector<Atom> over) {
  std::reverse(over.begin(), over.end());
  return ranks.group(rank, over);
}

const std::map<std::string, std::pair<std::set<std::string_view>, Mistake>> kMistakes = {
    {"reduction dropped", {{"all_reduce"}, [](const Site& s) { return s.in; }}},
    {"gather order swapped",
     {{"all_gather"},
      [](const Site& s) {
        return gather_in_order(s, [&](std::int64_t rank, const std::vector<Atom>& over) {
          auto group = s.ranks.group(rank, over);
          std::reverse(group.begin(), group.end());
          return group;
        });
      }}},
    // The reader takes the buffer for its piece: the first elements of the whole.
    {"slice skipped",
     {{"slice"},
      [](const Site& s) {
        Pieces out;
        for (std::size_t rank = 0; rank < s.in.size(); ++rank)
          out.push_back(s.in[rank].view({-1}).slice(0, 0, s.right[rank].numel()).view(s.right[rank].sizes()));
        return out;
      }}},
    {"suffix reversed at a gather",
     {{"all_gather"},
      [](const Site& s) {
        if (s.from.placement.flat.empty()) return s.right;
        return gather_in_order(s, [&](std::int64_t rank, const std::vector<Atom>& over) { return reversed_suffix(s.ranks, rank, over); });
      }}},
    {"suffix reversed at a scatter",
     {{"reduce_scatter", "slice"},
      [](const Site& s) {
        const std::vector<Atom>& over = s.to.placement.flat;
        Pieces out = s.right;
        if (over.empty()) return out;
        for (std::int64_t rank = 0; rank < s.ranks.num_ranks(); ++rank) {
          const auto group = s.ranks.group(rank, over), reversed = reversed_suffix(s.ranks, rank, over);
          const auto place = std::find(group.begin(), group.end(), rank) - group.begin();
          out[static_cast<std::size_t>(rank)] = s.right[static_cast<std::size_t>(reversed[static_cast<std::size_t>(place)])];
        }
        return out;
      }}},
    {"partial made without clearing", {{"to_partial"}, [](const Site& s) { return s.in; }}},
    {"reduced twice",
     {{"all_reduce", "reduce_scatter"},
      [](const Site& s) {
        Pieces out;
        for (const at::Tensor& piece : s.right) out.push_back(piece.mul(2));
        return s.from.placement.reduction == Reduction::sum ? out : s.right;    // a maximum of maxima is none
      }}},
    // What is not sent is not there: the buffer has what it began with.
    {"forgotten",
     {{"all_gather", "all_reduce", "reduce_scatter", "all_to_all"},
      [](const Site& s) {
        Pieces out;
        for (const at::Tensor& piece : s.right) out.push_back(at::zeros(piece.sizes(), at::kLong));
        return out;
      }}},
};

struct Tally {
  int caught = 0, tried = 0;
};

// embedding_grad looks at its table's extents only.
bool is_read(const Graph& graph, Value v) {
  for (const auto& nodes : graph.segments)
    for (const Node& node : nodes)
      for (std::size_t i = 0; i < node.in.size(); ++i) {
        if (node.in[i] != v || (node.op == &op(OpId::embedding_grad) && i == 2)) continue;
        if (!is_move(*node.op) || is_read(graph, node.out[i])) return true;
      }
  return false;
}

// One mistake at one operand of one move; whether it changed anything, and whether that was seen.
void try_at(const Graph& one, const Graph& placed, const RandomStep& step, const Node& node, std::size_t operand, const std::string& name,
            const Mistake& mistake, Tally& count) {
  if (!is_read(placed, node.out[operand])) return;
  bool changed = false;
  const LockStep::Fault fault = [&](const LockStep& ranks, const Node& at, std::size_t i, const Pieces& in, Pieces& out) {
    if (&at != &node || i != operand) return;
    Pieces wrong = mistake({ranks, placed.type(node.in[i]), placed.type(node.out[i]), in, out});
    for (std::size_t rank = 0; rank < out.size(); ++rank) changed |= !wrong[rank].equal(out[rank]);
    out = std::move(wrong);
  };
  const std::string found = StepPair(one, placed, step.inputs(), fault).step();
  if (!changed) return;    // pieces that are empty or alike: no mistake here
  ++count.tried;
  count.caught += !found.empty();
  EXPECT_NE(found, "") << name << " is not seen: " << node.op->name << " of " << name_of(placed, node.in[operand]) << " # " << node.note
                       << ", ZeRO " << step.options.zero_stage;
}

}    // namespace

TEST(Mutations, a_move_gone_wrong_is_caught_wherever_it_is) {
  std::map<std::string, Tally> counts;
  int site = 0;
  for (std::int64_t stage = 0; stage <= 3; ++stage) {
    const RandomStep step = step_of_stage(stage, 1 + stage % 2);
    const Graph one = step.on_one_rank(), placed = step.on_the_mesh();
    for (const auto& [name, mistake] : kMistakes)
      for (const Segment segment : kSegments)
        for (const Node& node : placed.nodes(segment))
          for (std::size_t i = 0; i < node.in.size(); ++i)
            // Every fourth, others on each stage: for the time. There are few slices.
            if (mistake.first.contains(node.op->name) && (node.op->name == "slice" || ++site % 4 == 0))
              try_at(one, placed, step, node, i, name, mistake.second, counts[name]);
  }
  for (const auto& [name, mistake] : kMistakes) {
    EXPECT_GT(counts[name].tried, 2) << name;
    EXPECT_EQ(counts[name].caught, counts[name].tried) << name;
  }
}

TEST(Mutations, one_tensor_of_a_bucket_forgotten_is_caught) {
  Tally count;
  for (const std::int64_t stage : {1, 3}) {
    const RandomStep step = step_of_stage(stage, 1);
    const Graph one = step.on_one_rank(), placed = step.on_the_mesh();
    ASSERT_EQ(StepPair(one, placed, step.inputs()).step(), "");
    for (const Segment segment : kSegments)
      for (const Node& node : placed.nodes(segment))
        if (is_move(*node.op) && node.in.size() > 1)
          for (std::size_t i = 0; i < node.in.size(); ++i)
            try_at(one, placed, step, node, i, "forgotten", kMistakes.at("forgotten").second, count);
  }
  EXPECT_GT(count.tried, 10);
}

// A weight gathered in one step and used in the next: the epilogue has changed it in between.
TEST(Mutations, a_gather_kept_past_its_step_is_caught) {
  int kept = 0;
  for (const DType compute : {DType::fp32, DType::bf16}) {
    const RandomStep step = step_of_stage(3, 1, compute);
    const Graph one = step.on_one_rank(), placed = step.on_the_mesh();
    StepPair pair(one, placed, step.inputs());
    for (int i = 0; i < 2; ++i) EXPECT_EQ(pair.step(), "");
    for (const Node& node : placed.nodes(Segment::first)) {
      if (node.op->name != "all_gather" || placed[node.in[0]].kind != ValueKind::state || !is_read(placed, node.out[0])) continue;
      Pieces before;    // of its first tensor
      StepPair wrong(one, placed, step.inputs(), [&](const LockStep&, const Node& at, std::size_t i, const Pieces&, Pieces& out) {
        if (&at != &node || i != 0) return;
        if (before.empty())
          before = out;
        else
          out = before;
      });
      EXPECT_EQ(wrong.step(), "");
      EXPECT_NE(wrong.step(), "") << node.note;
      ++kept;
    }
  }
  EXPECT_GT(kept, 10);
}

// The copy that ops read is made of the new weight: with the gather before the `set` it is the old one.
TEST(Mutations, a_gather_of_the_weight_before_its_update_is_caught) {
  int moved = 0;
  for (const std::int64_t stage : {1, 2}) {
    const RandomStep step = step_of_stage(stage, 1);
    const Graph one = step.on_one_rank(), placed = step.on_the_mesh();
    const std::vector<Node>& nodes = placed.nodes(Segment::epilogue);
    for (std::size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].op->name != "all_gather" || placed[nodes[i].in[0]].kind != ValueKind::state) continue;
      Graph wrong = placed;
      auto& epilogue = wrong.nodes(Segment::epilogue);
      std::rotate(epilogue.begin(), epilogue.begin() + static_cast<std::ptrdiff_t>(i),
                  epilogue.begin() + static_cast<std::ptrdiff_t>(i) + 1);
      EXPECT_NE(StepPair(one, wrong, step.inputs()).step(), "") << nodes[i].note;
      ++moved;
    }
  }
  EXPECT_GT(moved, 10);
}

// Mistakes that are in the graph: the verifier refuses them before anything runs.
TEST(Mutations, the_verifier_refuses_a_graph_without_one_of_its_moves) {
  int tried = 0;
  for (std::int64_t stage = 0; stage <= 3; ++stage) {
    const Graph placed = step_of_stage(stage, 2).on_the_mesh();
    for (const Segment segment : kSegments)
      for (std::size_t n = 0; n < placed.nodes(segment).size(); ++n) {
        const Node node = placed.nodes(segment)[n];
        if (!is_move(*node.op)) continue;
        Graph wrong = placed;
        wrong.nodes(segment).erase(wrong.nodes(segment).begin() + static_cast<std::ptrdiff_t>(n));
        for (auto& nodes : wrong.segments)
          for (Node& other : nodes)
            for (std::size_t i = 0; i < node.in.size(); ++i) std::replace(other.in.begin(), other.in.end(), node.out[i], node.in[i]);
        EXPECT_THROW(verify(wrong, Level::l3), InternalError) << node.op->name << " # " << node.note << ", ZeRO " << stage;
        ++tried;
      }
  }
  EXPECT_GT(tried, 200);
}
TEST(Mutations, the_verifier_refuses_a_state_whose_suffix_is_reversed) {
  for (std::int64_t stage = 1; stage <= 3; ++stage) {
    const Graph placed = step_of_stage(stage, 2).on_the_mesh();
    for (const Value v : placed.all(ValueKind::state)) {
      if (placed.type(v).placement.flat.size() < 2) continue;
      Graph wrong = placed;
      std::reverse(wrong[v].type.placement.flat.begin(), wrong[v].type.placement.flat.end());
      EXPECT_THROW(verify(wrong, Level::l3), InternalError) << placed[v].name;
    }
  }
}
