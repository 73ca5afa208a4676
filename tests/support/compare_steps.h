#pragma once
// A placed step in lock-step beside the same step on one rank, value by value: integer mode, so all of them are equal to the bit.
#include <optional>
#include <random>

#include "support/lock_step.h"

namespace sheaf::testing {

// The same inputs for both: what an index is, lies in its range; all else is any number.
struct StepInputs {
  std::int64_t vocab = 17;
  std::uint64_t seed = 7;
};

class StepPair {
 public:
  StepPair(const Graph& one, const Graph& placed, const StepInputs& inputs, LockStep::Fault fault = {})
      : one_(one), placed_(placed), inputs_(inputs), rng_(inputs.seed), expected_(one, Numbers::integer), ranks_(placed, std::move(fault)) {
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

  bool is_copy(const Node& node) const { return node.op->name == "set" && !one_.find(placed_[node.in[0]].name); }
  std::string run(Segment segment) {
    auto there = placed_.nodes(segment).begin();
    const auto end = placed_.nodes(segment).end();
    const auto run_moves = [&] {
      for (; there != end && (is_move(*there->op) || is_copy(*there)); ++there) {
        ranks_.run(*there);
        moves_ += is_move(*there->op);
      }
    };
    expected_.run(segment);
    for (const Node& node : one_.nodes(segment)) {
      run_moves();
      if (there == end || there->op != node.op) return fmt::format("{}: the placed graph has other nodes", name(segment));
      ranks_.run(*there);
      for (std::size_t o = 0; o < node.out.size(); ++o)
        if (const std::string found = difference(there->out[o], node.out[o]); !found.empty())
          return fmt::format("{}: {} {}", name(segment), node.op->name, found);
      ++there;
    }
    run_moves();
    if (there != end) return fmt::format("{}: the placed graph has more nodes", name(segment));
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
  std::mt19937_64 rng_;
  Interpreter expected_;
  LockStep ranks_;
  std::size_t moves_ = 0, values_ = 0;
};

}    // namespace sheaf::testing
