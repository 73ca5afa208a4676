// bucket: collectives of many small tensors become few large ones, and stand where they can run beside computation.
//
// On entry: lowered (L3), first and rest are there.
// On exit:  the same moves, several operands to a node, in another order:
//
//   gathers of states in the body   in the order in which they are read; a bucket is asked for where the bucket before it is first read, so
//                                   that it arrives while that one is computed with
//   reductions of gradients         a bucket goes when its last member is there; what is done with the result (accumulate) is done where
//   the
//                                   next bucket goes, or at the end of the segment. With one micro-batch those of the epilogue go in the
//                                   backward, as soon as the gradient is there
//   in the epilogue                 neighbours of one kind, as far as their operands are there, in front of the `set`s of derived states
//                                   between them: these stand in one run then, which is what flatten joins
//
// A bucket holds at most options.gather_bucket, reduce_bucket or update_bucket elements, and no more than an eighth of all elements of its
// kind in the segment, or one tensor, if that is more: gathered copies and gradients that wait stay a small part of the whole.
#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "ops/op_table.h"
#include "passes/pass.h"
#include "passes/plan_memory.h"

namespace sheaf {
namespace {

constexpr std::int64_t kParts = 8;

class Buckets {
 public:
  Buckets(Graph& graph, const Options& options) : graph_(graph), options_(options) {}

  void run() {
    if (graph_.nodes(Segment::rest).empty()) move_into_backward();
    for (const Segment segment : {Segment::first, Segment::rest}) {
      gather_states(graph_.nodes(segment));
      reduce_gradients(graph_.nodes(segment));
    }
    merge_neighbours(graph_.nodes(Segment::epilogue));
  }

 private:
  bool is_tensor(Value v) const { return !graph_.type(v).shape.empty(); }
  std::int64_t elements(const Node& node) const {    // of the whole tensors that a rank has before or behind
    std::int64_t n = 0;
    for (std::size_t i = 0; i < node.in.size(); ++i) n += std::max(graph_.local_elements(node.in[i]), graph_.local_elements(node.out[i]));
    return n;
  }
  std::int64_t limit(std::int64_t wanted, const std::vector<Node>& members) const {
    std::int64_t all = 0;
    for (const Node& node : members) all += elements(node);
    return std::min(wanted, all / kParts);    // a single tensor always fits
  }
  static void join(Node& bucket, const Node& node) {
    bucket.in.insert(bucket.in.end(), node.in.begin(), node.in.end());
    bucket.out.insert(bucket.out.end(), node.out.begin(), node.out.end());
    bucket.note =
        fmt::format("{} tensors; first: {}", bucket.in.size(),
                    bucket.note.substr(bucket.note.find("; first: ") == std::string::npos ? 0 : bucket.note.find("; first: ") + 9));
  }
  // In order; a bucket is cut where the kind changes or it would be too large.
  std::vector<std::vector<Node>> cut(const std::vector<Node>& members, std::int64_t wanted) const {
    const std::int64_t most = limit(wanted, members);
    std::vector<std::vector<Node>> buckets;
    std::int64_t size = 0;
    for (const Node& node : members) {
      const std::int64_t n = elements(node);
      if (buckets.empty() || buckets.back()[0].op != node.op || size + n > most) buckets.emplace_back(), size = 0;
      buckets.back().push_back(node);
      size += n;
    }
    return buckets;
  }
  static Node joined(const std::vector<Node>& bucket) {
    Node node = bucket[0];
    for (std::size_t i = 1; i < bucket.size(); ++i) join(node, bucket[i]);
    return node;
  }

  // Reductions in the epilogue of what `first` made: behind the node that makes it.
  void move_into_backward() {
    std::map<Value, std::vector<Node>> behind;
    std::set<Value> made;
    for (const Node& node : graph_.nodes(Segment::first)) made.insert(node.out.begin(), node.out.end());
    std::vector<Node> stay;
    for (Node& node : graph_.nodes(Segment::epilogue)) {
      if (communicates(node) && is_tensor(node.in[0]) && made.contains(node.in[0])) {
        made.insert(node.out[0]);
        behind[node.in[0]].push_back(std::move(node));
      } else {
        stay.push_back(std::move(node));
      }
    }
    graph_.nodes(Segment::epilogue) = std::move(stay);
    std::vector<Node> out;
    const auto emit = [&](auto&& self, Node node) -> void {
      const Values made_here = node.out;
      out.push_back(std::move(node));
      for (const Value v : made_here)
        if (const auto found = behind.find(v); found != behind.end())
          for (const Node& next : std::vector(found->second)) self(self, next);
    };
    for (Node& node : graph_.nodes(Segment::first)) emit(emit, std::move(node));
    graph_.nodes(Segment::first) = std::move(out);
  }

  void gather_states(std::vector<Node>& nodes) const {
    std::vector<Node> gathers;
    std::vector<std::size_t> at;    // where each stands
    for (std::size_t n = 0; n < nodes.size(); ++n)
      if (is_gather(nodes[n])) gathers.push_back(nodes[n]), at.push_back(n);
    std::map<std::size_t, std::vector<Node>> here;    // position -> buckets that are asked for there
    std::size_t first = 0, before = 0;
    for (const auto& bucket : cut(gathers, options_.gather_bucket)) {
      here[at[first == 0 ? 0 : before]].push_back(joined(bucket));
      before = first;
      first += bucket.size();
    }
    std::vector<Node> out;
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (const auto found = here.find(n); found != here.end()) out.insert(out.end(), found->second.begin(), found->second.end());
      if (!is_gather(nodes[n])) out.push_back(std::move(nodes[n]));
    }
    nodes = std::move(out);
  }
  bool is_gather(const Node& node) const {
    return node.op == &op(OpId::all_gather) && graph_[node.in[0]].kind == ValueKind::state && node.in.size() == 1;
  }

  void reduce_gradients(std::vector<Node>& nodes) const {
    std::map<Value, std::vector<std::size_t>> readers;
    for (std::size_t n = 0; n < nodes.size(); ++n)
      for (const Value v : nodes[n].in)
        if (v) readers[v].push_back(n);
    // Nodes that take a reduced gradient into its accumulator: `set`, or `add` and its `set`.
    const auto takers = [&](Value v, std::vector<std::size_t>& found) {
      for (const std::size_t n : readers[v]) {
        const Node& node = nodes[n];
        if (node.op == &op(OpId::set) && graph_[node.in[0]].kind == ValueKind::carried) {
          found.push_back(n);
        } else if (node.op == &op(OpId::add) && graph_[node.in[0]].kind == ValueKind::carried) {
          found.push_back(n);
          for (const std::size_t next : readers[node.out[0]]) found.push_back(next);
        } else {
          return false;
        }
      }
      return true;
    };
    std::vector<Node> reductions;
    std::map<Value, std::vector<std::size_t>> taken_by;    // by result of the reduction
    std::set<std::size_t> moved;
    for (const Node& node : nodes) {
      if (node.op != &op(OpId::reduce_scatter) && node.op != &op(OpId::all_reduce)) continue;
      std::vector<std::size_t> found;
      if (!is_tensor(node.in[0]) || graph_[node.in[0]].kind != ValueKind::result || !takers(node.out[0], found)) continue;
      reductions.push_back(node);
      moved.insert(found.begin(), found.end());
      taken_by[node.out[0]] = std::move(found);
    }
    std::map<Value, const std::vector<Node>*> last_of;    // result of a bucket's last member
    const auto buckets = cut(reductions, options_.reduce_bucket);
    for (const auto& bucket : buckets) last_of[bucket.back().out[0]] = &bucket;
    std::vector<Node> out;
    std::vector<std::size_t> waiting;    // takers of the bucket before
    const auto take = [&] {
      for (const std::size_t n : waiting) out.push_back(nodes[n]);
      waiting.clear();
    };
    for (std::size_t n = 0; n < nodes.size(); ++n) {
      if (moved.contains(n)) continue;
      if (nodes[n].out.empty() || !taken_by.contains(nodes[n].out[0])) {
        out.push_back(nodes[n]);
        continue;
      }
      const auto last = last_of.find(nodes[n].out[0]);
      if (last == last_of.end()) continue;    // goes with its bucket
      out.push_back(joined(*last->second));
      take();
      for (const Node& member : *last->second)
        for (const std::size_t taker : taken_by.at(member.out[0])) waiting.push_back(taker);
    }
    take();
    nodes = std::move(out);
  }

  void merge_neighbours(std::vector<Node>& nodes) const {
    std::map<Value, std::size_t> made, set_at;    // position in `out`
    std::vector<Node> out, of_kind;
    std::map<const OpDef*, std::int64_t> most;
    for (const Node& node : nodes) {
      if (!communicates(node) || !is_tensor(node.in[0]) || most.contains(node.op)) continue;
      of_kind.clear();
      for (const Node& other : nodes)
        if (other.op == node.op && is_tensor(other.in[0])) of_kind.push_back(other);
      most[node.op] = limit(node.op == &op(OpId::all_gather) ? options_.update_bucket : options_.reduce_bucket, of_kind);
    }
    struct Open {
      std::size_t at;
      std::int64_t size;
    };
    std::map<const OpDef*, Open> open;
    for (Node& node : nodes) {
      if (communicates(node) && is_tensor(node.in[0])) {
        const Value v = node.in[0];
        const std::int64_t n = elements(node);
        const auto bucket = open.find(node.op);
        const auto there = [&](std::size_t position) {    // is v there, with the content that it has here, at this position?
          const auto m = made.find(v), s = set_at.find(v);
          return (m == made.end() || m->second < position) && (s == set_at.end() || s->second < position);
        };
        if (bucket != open.end() && bucket->second.size + n <= most[node.op] && there(bucket->second.at)) {
          join(out[bucket->second.at], node);
          bucket->second.size += n;
          for (const Value o : node.out) made[o] = bucket->second.at;
          continue;
        }
        open[node.op] = {out.size(), n};
      }
      for (const Value v : node.out) made[v] = out.size();
      if (node.op == &op(OpId::set)) set_at[node.in[0]] = out.size();
      out.push_back(std::move(node));
    }
    const auto sets_copy = [&](const Node& node) { return node.op == &op(OpId::set) && graph_[node.in[0]].name.ends_with(".c"); };
    for (std::size_t n = 1; n < out.size(); ++n)
      for (std::size_t at = n; at > 0 && communicates(out[at]) && sets_copy(out[at - 1]); --at) std::swap(out[at], out[at - 1]);
    nodes = std::move(out);
  }

  Graph& graph_;
  const Options& options_;
};

}    // namespace

Graph bucket(Graph graph, const Options& options) {
  if (!graph.mesh.atoms.empty()) Buckets(graph, options).run();
  return graph;
}

}    // namespace sheaf
