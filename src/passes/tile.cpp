// tile: the head runs in chunks of tokens, forward and backward of a chunk together, so that logits are never whole.
//
// On entry: local (L3); the nodes that read or make values of the logits' shape, and those between them, work token by token but for sums.
// On exit:  such a region stands once for each chunk of options.tile_rows tokens of a rank or a few less, where it divides. What leaves it
//           is the chunks side by side, or their sum. Nothing changes where a rank has no more tokens than that, or an op of the region
//           needs all tokens at once.
//
//   %2 = einsum %0, @w {b s k, v k -> b s v}          %3 = chunk %0 {b=1, s=2, index=0}
//   ...                                               %4 = einsum %3, @w {b s k, v k -> b s v}
//   %8 = einsum %7, @w {b s v, v k -> b s k}          ...
//   %9 = einsum %7, %0 {b s v, b s k -> v k}          %5 = chunk %0 {b=1, s=2, index=1}
//                                            becomes  ...
//                                                     %8 = unchunk %20, %30 {b=1, s=2}
//                                                     %9 = add %21, %31
#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "ops/op_table.h"
#include "passes/pass.h"

namespace sheaf {
namespace {

// How many pieces of what a rank holds: rows, and tokens of a row.
struct Pieces {
  std::int64_t b = 1, s = 1;
  std::int64_t count() const { return b * s; }
};

// The smallest divisor of n that is at least `wanted`, unless it is more than four times that.
std::optional<std::int64_t> divisor(std::int64_t n, std::int64_t wanted) {
  for (std::int64_t d = wanted; d <= std::min(n, 4 * wanted); ++d)
    if (n % d == 0) return d;
  return std::nullopt;
}

class Tiling {
 public:
  Tiling(Graph& graph, Segment segment, std::int64_t rows) : graph_(graph), segment_(segment), nodes_(graph.nodes(segment)), rows_(rows) {}

  void run() {
    std::vector<Value> logits;
    for (const Node& node : nodes_)
      if (node.op == &op(OpId::row_max)) logits.push_back(node.in[0]);
    for (const Value v : logits)
      if (const auto pieces = pieces_of(v); pieces && pieces->count() > 1) {
        find_region(v);
        if (follow_tokens()) write(*pieces);
      }
  }

 private:
  enum class Part { whole, chunk, sum };    // what a chunk of the region has of a value: all of it, its tokens, an addend

  std::optional<Pieces> pieces_of(Value v) const {
    const Type& type = graph_.type(v);
    if (type.shape.size() < 2 || !type.placement.flat.empty()) return std::nullopt;
    std::int64_t held[2];    // rows and tokens of a rank, the same on all ranks
    for (std::size_t d = 0; d < 2; ++d) {
      std::int64_t ranks = 1;
      for (const Atom atom : type.placement.dim(d)) ranks *= graph_.mesh.atoms[atom].size;
      if (type.shape[d] % ranks != 0) return std::nullopt;
      held[d] = type.shape[d] / ranks;
    }
    const std::int64_t wanted = (held[0] * held[1] + rows_ - 1) / rows_;
    if (wanted <= held[0]) {
      const auto b = divisor(held[0], std::max<std::int64_t>(1, wanted));
      return b ? std::optional(Pieces{*b, 1}) : std::nullopt;
    }
    const auto s = divisor(held[1], (wanted + held[0] - 1) / held[0]);
    return s ? std::optional(Pieces{held[0], *s}) : std::nullopt;
  }

  // Nodes that touch values of the logits' shape, from one to the next, and what lies between them.
  void find_region(Value logits) {
    const Shape& shape = graph_.type(logits).shape;
    std::set<Value> large = {logits};
    for (bool more = true; more;) {
      more = false;
      for (const Node& node : nodes_) {
        const auto is_large = [&](Value v) { return large.contains(v); };
        if (std::none_of(node.in.begin(), node.in.end(), is_large) && std::none_of(node.out.begin(), node.out.end(), is_large)) continue;
        for (const auto* side : {&node.in, &node.out})
          for (const Value v : *side)
            if (v && graph_[v].kind == ValueKind::result && graph_.type(v).shape == shape) more |= large.insert(v).second;
      }
    }
    in_region_.assign(nodes_.size(), false);
    const auto any_of = [](const Values& values, const std::set<Value>& set) {
      return std::any_of(values.begin(), values.end(), [&](Value v) { return set.contains(v); });
    };
    std::vector<bool> core;    // touches the large values
    for (const Node& node : nodes_) core.push_back(any_of(node.in, large) || any_of(node.out, large));
    std::set<Value> made, wanted;    // by the core, or from what it made; by the core, or by what it wants
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      in_region_[n] = core[n] || any_of(nodes_[n].in, made);
      if (in_region_[n]) made.insert(nodes_[n].out.begin(), nodes_[n].out.end());
    }
    for (std::size_t n = nodes_.size(); n-- > 0;) {
      const bool needed = core[n] || any_of(nodes_[n].out, wanted);
      if (needed) wanted.insert(nodes_[n].in.begin(), nodes_[n].in.end());
      in_region_[n] = in_region_[n] && needed;
    }
    part_.clear();
    part_[logits] = Part::chunk;
  }

  // Which values of the region have tokens, by the letters of the rules. False: an op wants all tokens at once, or has them elsewhere than
  // in its first two dims.
  bool follow_tokens() {
    for (bool more = true; more;) {
      more = false;
      for (std::size_t n = 0; n < nodes_.size(); ++n) {
        if (!in_region_[n]) continue;
        const Node& node = nodes_[n];
        if (node.op->name == "set" || exchanges_rows(*node.op) || moves_tokens(node)) return false;
        const Rule rule = rule_for(*node.op, node.attrs, graph_.types(node.in));
        std::vector<std::pair<Value, const Rule::Factors*>> sides;
        std::size_t p = 0;
        for (const Value v : node.in)
          if (v) sides.emplace_back(v, &rule.in[p++]);
        for (std::size_t o = 0; o < node.out.size(); ++o) sides.emplace_back(node.out[o], &rule.out[o]);
        Rule::Factors tokens;
        for (const auto& [v, factors] : sides)
          if (const auto known = part_.find(v); known != part_.end() && known->second == Part::chunk)
            tokens = {(*factors)[0], (*factors)[1]};
        if (tokens.empty()) continue;
        if (rule.is_full(tokens[0]) || rule.is_full(tokens[1])) return false;
        for (std::size_t i = 0; i < sides.size(); ++i) {
          const auto& [v, factors] = sides[i];
          const auto count =
              std::count(factors->begin(), factors->end(), tokens[0]) + std::count(factors->begin(), factors->end(), tokens[1]);
          const bool leads = factors->size() >= 2 && (*factors)[0] == tokens[0] && (*factors)[1] == tokens[1];
          if (count != 0 && !leads) return false;
          const bool is_output = i + node.out.size() >= sides.size();
          const Part part = leads ? Part::chunk : is_output ? Part::sum : Part::whole;
          const auto [entry, fresh] = part_.emplace(v, part);
          more |= fresh;
          // What is summed over the tokens is known when all of them are: nothing of the region may read it.
          if (entry->second != part) return false;
        }
      }
    }
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      if (!in_region_[n]) continue;
      for (const Value v : nodes_[n].out)
        if (!part_.contains(v)) return false;
    }
    return true;
  }

  // A chunk of what a rank holds is another set of tokens behind a move that cuts them anew.
  bool moves_tokens(const Node& node) const {
    if (!is_move(*node.op)) return false;
    const Placement &from = graph_.type(node.in[0]).placement, &to = graph_.type(node.out[0]).placement;
    return from.dim(0) != to.dim(0) || from.dim(1) != to.dim(1);
  }

  void write(const Pieces& pieces) {
    std::size_t first = nodes_.size(), last = 0;
    for (std::size_t n = 0; n < nodes_.size(); ++n)
      if (in_region_[n]) first = std::min(first, n), last = n;
    std::vector<Node> before, region, behind;
    std::set<Value> made;    // by the region, or from that
    for (std::size_t n = 0; n < nodes_.size(); ++n) {
      Node& node = nodes_[n];
      const bool depends = std::any_of(node.in.begin(), node.in.end(), [&](Value v) { return made.contains(v); });
      if (in_region_[n] || depends) made.insert(node.out.begin(), node.out.end());
      (in_region_[n] ? region : n < first || (n < last && !depends) ? before : behind).push_back(std::move(node));
    }
    nodes_ = std::move(before);
    std::map<Value, Values> chunks;    // of what leaves the region
    for (std::int64_t i = 0; i < pieces.count(); ++i) write_chunk(region, pieces, i, behind, chunks);
    for (const auto& [v, list] : chunks) {
      Node whole = graph_.make_node(op(OpId::unchunk), list, {{"b", pieces.b}, {"s", pieces.s}}, "tiled");
      whole.out[0] = v;
      nodes_.push_back(std::move(whole));
    }
    std::move(behind.begin(), behind.end(), std::back_inserter(nodes_));
  }

  void write_chunk(const std::vector<Node>& region, const Pieces& pieces, std::int64_t index, const std::vector<Node>& behind,
                   std::map<Value, Values>& chunks) {
    std::map<Value, Value> here;
    const auto chunk_of = [&](Value v) {
      if (const auto found = here.find(v); found != here.end()) return found->second;
      const auto part = part_.find(v);
      if (part == part_.end() || part->second != Part::chunk) return v;
      Node cut = graph_.make_node(op(OpId::chunk), {v}, {{"b", pieces.b}, {"s", pieces.s}, {"index", index}}, "tiled");
      graph_[cut.out[0]].type.placement = graph_.type(v).placement;
      nodes_.push_back(cut);
      return here[v] = cut.out[0];
    };
    for (const Node& node : region) {
      Values in;
      for (const Value v : node.in) in.push_back(v ? chunk_of(v) : v);
      Node copy = graph_.make_node(*node.op, in, node.attrs, node.note);
      std::vector<Node> sums;
      for (std::size_t o = 0; o < node.out.size(); ++o) {
        const Value v = node.out[o];
        graph_[copy.out[o]].type.dtype = graph_.type(v).dtype;
        graph_[copy.out[o]].type.placement = graph_.type(v).placement;
        here[v] = copy.out[o];
        if (part_.at(v) == Part::chunk) {
          if (is_read(v, behind)) chunks[v].push_back(copy.out[o]);
          continue;
        }
        const bool is_last = index + 1 == pieces.count();
        if (const auto sum = sum_.find(v); sum != sum_.end()) {
          Node add = graph_.make_node(op(OpId::add), {sum->second, copy.out[o]}, {}, "tiled");
          graph_[add.out[0]].type.placement = graph_.type(v).placement;
          if (is_last) add.out[0] = v;
          sum->second = add.out[0];
          sums.push_back(std::move(add));
        } else {
          sum_[v] = copy.out[o];
        }
      }
      nodes_.push_back(std::move(copy));
      std::move(sums.begin(), sums.end(), std::back_inserter(nodes_));
    }
  }

  bool is_read(Value v, const std::vector<Node>& behind) const {
    const auto reads = [&](const Node& node) { return std::find(node.in.begin(), node.in.end(), v) != node.in.end(); };
    if (std::any_of(behind.begin(), behind.end(), reads)) return true;
    for (const Segment other : kSegments)
      if (other != segment_ && std::any_of(graph_.nodes(other).begin(), graph_.nodes(other).end(), reads)) return true;
    return false;
  }

  Graph& graph_;
  Segment segment_;
  std::vector<Node>& nodes_;
  std::int64_t rows_;
  std::vector<bool> in_region_;
  std::map<Value, Part> part_;
  std::map<Value, Value> sum_;    // of the chunks so far
};

}    // namespace

Graph tile(Graph graph, const Options& options) {
  if (options.tile_rows > 0)
    for (const Segment segment : {Segment::first, Segment::rest}) Tiling(graph, segment, options.tile_rows).run();
  return graph;
}

}    // namespace sheaf
