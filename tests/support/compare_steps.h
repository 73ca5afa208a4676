#pragma once
// A placed step in lock-step beside the same step on one rank, value by value: integer mode, so all of them are equal to the bit.
#include <optional>
#include <random>
#include <tuple>

#include "support/lock_step.h"

namespace sheaf::testing {

// The same inputs for both: what an index is, lies in its range; all else is any number.
struct StepInputs {
  std::int64_t vocab = 17;
  std::uint64_t seed = 7;
};

class StepPair {
 public:
  // by_value: every value of the placed step is one of the other's; else states and accumulators only, at the end of each segment.
  StepPair(const Graph& one, const Graph& placed, const StepInputs& inputs, LockStep::Fault fault = {}, bool by_value = true)
      : one_(one),
        placed_(placed),
        inputs_(inputs),
        by_value_(by_value),
        rng_(inputs.seed),
        expected_(one, Numbers::integer),
        ranks_(placed, std::move(fault)) {
    for (const ValueKind kind : {ValueKind::state, ValueKind::carried}) give(kind);
  }

  // One step. The first value that differs, "" if there is none; what a kernel or the lock-step throws is a difference as well.
  std::string step() {
    give(ValueKind::input);
    give(ValueKind::argument);
    const Values inputs = one_.all(ValueKind::input);
    const std::int64_t m = one_.nodes(Segment::rest).empty() ? 1 : one_.type(inputs.at(0)).shape[0];
    for (const Segment segment : kSegments)
      for (std::int64_t i = segment == Segment::rest ? 1 : m - 1; i < m; ++i) {
        if (segment == Segment::first || segment == Segment::rest) micro_batch(segment == Segment::rest ? i : 0);
        try {
          if (const std::string found = run(segment); !found.empty()) return found;
        } catch (const std::exception& error) {
          const std::string what = error.what();
          return fmt::format("{}: {}", name(segment), what.substr(0, what.find('\n')));
        }
      }
    return "";
  }
  std::size_t num_moves() const { return moves_; }
  std::size_t num_values() const { return values_; }

 private:
  at::Tensor random(const std::string& name, const Shape& shape) {
    at::Tensor t = at::empty(shape, at::kLong);
    const std::int64_t last = shape.empty() ? 1 : shape.back();
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      const auto r = static_cast<std::int64_t>(rng_());
      const std::int64_t index = (r & 0xffff) % inputs_.vocab;
      t.data_ptr<std::int64_t>()[i] = name == "ids"             ? index
                                      : name == "labels"        ? ((r >> 20 & 3) == 0 ? -100 : index)
                                      : name == "document_ends" ? (i % last + 1) * 2
                                                                : r;
    }
    return t;
  }
  void give(Value there, Value here, const at::Tensor& t) {
    if (here) expected_.give(here, t.clone());
    ranks_.give(there, t);
  }
  void give(ValueKind kind) {
    std::map<std::string, at::Tensor> given;
    for (const Value v : one_.all(kind)) {
      const std::string& name = one_[v].name;
      const at::Tensor t = given[name] = name == "step.micro_batch" ? at::zeros({}, at::kLong) : random(name, one_.type(v).shape);
      expected_.give(v, t.clone());
      if (const Value there = placed_.find(name)) ranks_.give(there, t);
    }
    for (const Value v : placed_.all(kind))    // a copy that only the placed step has
      if (!one_.find(placed_[v].name)) ranks_.give(v, given.at(placed_[v].attrs.text("of")));
  }
  void micro_batch(std::int64_t i) {
    for (const Graph* graph : {&one_, &placed_}) {
      const Value v = graph->find("step.micro_batch");
      if (!v) continue;
      const at::Tensor t = at::full({}, i, at::kLong);
      graph == &one_ ? expected_.give(v, t) : ranks_.give(v, t);
    }
  }

  // Of a value of the placed graph: that of the other one which it stands for. Moves change nothing.
  Value counterpart(Value v) const {
    if (!v) return v;
    if (const auto found = counterparts_.find(v); found != counterparts_.end()) return found->second;
    const ValueInfo& info = placed_[v];
    if (info.kind == ValueKind::result) return {};
    const Value same = one_.find(info.name);
    return same || !info.attrs.has("of") ? same : one_.find(info.attrs.text("of"));
  }
  using Key = std::tuple<const OpDef*, std::string, Values>;    // what makes two nodes the same
  static Key key(const Node& node, Values in) { return {node.op, print(node.attrs), std::move(in)}; }

  // A dispatch or combine that exchanges rows as well is one to a single rank.
  static Node without_exchange(const Node& node) {
    if (!exchanges_rows(*node.op) || node.op->name == "exchange_rows") return node;
    Node plain = node;
    plain.op = &op(node.op->name == "exchange_dispatch" ? OpId::dispatch : OpId::combine);
    plain.in.pop_back();
    return plain;
  }

  // The placed graph has the nodes of the other one, in an order of its own, and moves, and copies of weights.
  std::string run(Segment segment) {
    if (!by_value_) {
      expected_.run(segment);
      ranks_.run(segment);
      return states_differ(segment);
    }
    std::map<Key, std::vector<const Node*>> left;    // nodes of the one rank that no node of the placed graph has met yet
    for (const Node& node : one_.nodes(segment)) left[key(node, node.in)].push_back(&node);
    expected_.run(segment);
    for (const Node& given : placed_.nodes(segment)) {
      ranks_.run(given);
      const Node node = without_exchange(given);
      if (is_move(*node.op) || exchanges_rows(*node.op)) {
        ++moves_;
        for (std::size_t i = 0; i < node.out.size(); ++i) counterparts_[node.out[i]] = counterpart(node.in[i]);
        continue;
      }
      if (node.op->name == "set" && !one_.find(placed_[node.in[0]].name)) continue;    // a copy
      Values in;
      for (const Value v : node.in) in.push_back(counterpart(v));
      const auto found = left.find(key(node, in));
      if (found == left.end()) return fmt::format("{}: {} ({}) is no node of the one rank", name(segment), node.op->name, node.note);
      const Node& same = *found->second.front();
      found->second.erase(found->second.begin());
      if (found->second.empty()) left.erase(found);
      for (std::size_t o = 0; o < node.out.size(); ++o) {
        counterparts_[node.out[o]] = same.out[o];
        if (const std::string text = difference(node.out[o], same.out[o]); !text.empty())
          return fmt::format("{}: {} {}", name(segment), node.op->name, text);
      }
    }
    if (!left.empty()) return fmt::format("{}: the placed graph lacks {}", name(segment), std::get<0>(left.begin()->first)->name);
    return states_differ(segment);
  }
  std::string states_differ(Segment segment) {
    for (const ValueKind kind : {ValueKind::state, ValueKind::carried})
      for (const Value v : placed_.all(kind)) {
        const std::string& name = placed_[v].name;
        Value same = one_.find(name);
        // A copy of the one rank's weight, once the epilogue has rewritten both.
        if (!same) same = segment == Segment::epilogue ? one_.find(placed_[v].attrs.text("of")) : Value{};
        if (!same) continue;
        if (const std::string found = difference(v, same); !found.empty())
          return fmt::format("{}: @{} {}", sheaf::name(segment), name, found);
      }
    return "";
  }
  std::string difference(Value there, Value here) {
    ++values_;
    return ranks_.whole(there).equal(expected_[here]) ? "" : fmt::format("differs at {}", print(placed_.type(there), placed_.mesh));
  }

  const Graph &one_, &placed_;
  StepInputs inputs_;
  bool by_value_;
  std::mt19937_64 rng_;
  Interpreter expected_;
  LockStep ranks_;
  std::map<Value, Value> counterparts_;
  std::size_t moves_ = 0, values_ = 0;
};

}    // namespace sheaf::testing
