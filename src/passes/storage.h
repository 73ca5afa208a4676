#pragma once
// Which values of a plan share bytes, and when each is live. Of the steps of plan_memory the first three, each on *buffers*, sets of values
// that share bytes, which go by one of them, their root:
//   1 packs      members lie one after the other in the pack's buffer, chunks in the tensor that they are of, and what one product makes or
//                reads side by side in the buffer of the first
//   2 set        the producer of a value writes into the target of its `set`
//   3 in place   an op writes over an operand that nothing reads any more
// Values go by Value::id, time is the position of a node over all segments.
#include <map>

#include "ir/graph.h"
#include "passes/columns.h"

namespace sheaf {

// A node that is a view: its parts are of one size and lie one after the other in the whole, the first of them `first` parts from its
// start.
struct ViewLayout {
  Value whole;
  const Values& parts;
  std::int64_t first, part_bytes;
  std::int64_t offset(std::size_t part) const { return (first + static_cast<std::int64_t>(part)) * part_bytes; }
};
ViewLayout view_layout(const Graph& graph, const Node& node);

class Storage {
 public:
  Storage(const Graph& graph, const ColumnMasks& columns);

  std::size_t root(std::size_t v) const { return root_[v] == v ? v : root(root_[v]); }
  // Bytes from the start of the root to that of v, and Place::pitch.
  std::int64_t shift(std::size_t v) const { return root_[v] == v ? 0 : shift_[v] + shift(root_[v]); }
  std::int64_t pitch(std::size_t v) const { return pitch_[v]; }
  const std::vector<std::int64_t>& pitches() const { return pitch_; }
  // Of the buffer of a root.
  std::int64_t bytes(std::size_t root) const { return buffers_[root].bytes; }
  bool is_persistent(std::size_t root) const { return buffers_[root].persistent; }
  // Has no place in the plan: runtime/dynamic_rows.h.
  bool is_dynamic(std::size_t v) const { return graph_.has_dynamic_rows({static_cast<int>(v)}); }

  // When a node makes v (-1: none does); when it is read for the last time, over all runs of `rest`; until when the operands of a node are
  // read, if that is a collective that others run beside (-1: it is none).
  int defined(std::size_t v) const { return defined_[v]; }
  int last_use_in_time(std::size_t v) const;
  int waited_for(std::size_t t) const { return wait_[t]; }

 private:
  // A node in time.
  struct Event {
    const Node* node;
    Segment segment;
  };
  struct Buffer {
    std::int64_t bytes = 0;
    bool persistent = false;
  };

  void place_packs();
  void place_views();
  void place_columns();
  void share_with_targets();
  bool works_in_place(const Node& producer, Value v, std::size_t resident, std::size_t target) const;
  bool overlap(std::size_t a, std::size_t b) const;
  bool takes_columns_of(std::size_t out, std::size_t in, int t) const;
  void share_in_place();
  int last_use(std::size_t buffer);
  std::vector<std::size_t> residents_of_result(std::size_t buffer) const;

  const Graph& graph_;
  const Columns columns_;
  std::vector<Event> events_;
  std::vector<std::size_t> root_;
  std::vector<std::int64_t> shift_;    // bytes from the start of the parent
  std::vector<std::int64_t> pitch_;
  std::vector<Buffer> buffers_;
  std::vector<int> defined_;
  std::vector<std::vector<int>> uses_;    // ascending; of a collective's operands also when it is waited for
  std::vector<int> wait_;
  std::map<std::size_t, bool> is_pack_;
  std::map<std::size_t, int> last_use_;
};

}    // namespace sheaf
