#pragma once
// Routed values of experts that are cut over ranks: how many rows a rank holds is known only when the router has decided. They lie outside
// of the plan's arena, in memory that grows as needed and is kept (PooledAllocations, runtime/scratch.h), from the call that makes them to
// the last one of the segment that reads them.
//
//   main stream    route | shared experts ..              | rows, products of experts ..
//   side stream          | counts, to the host |
//   host           gives out, and runs ahead ..      waits ^ gives out ..
#include <functional>
#include <map>

#include "runtime/call.h"
#include "runtime/row_exchange.h"
#include "runtime/side_stream.h"

namespace sheaf {

class DynamicRows {
 public:
  // local: types of the rank's pieces by Value::id. views: of all values, by Value::id; those of dynamic values are set here.
  // transport: nullptr only where no value is dynamic. side: for counts; nullptr: at once.
  DynamicRows(const Graph& graph, const std::vector<Type>& local, std::vector<at::Tensor>& views, at::Device device, bool poison,
              Transport* transport, SideStream* side);
  ~DynamicRows();
  DynamicRows(const DynamicRows&) = delete;
  DynamicRows& operator=(const DynamicRows&) = delete;

  static bool touches(const Graph& graph, const Node& node);
  void add_exchange(const Node& node, Transport& transport, const std::string& what);
  std::vector<Group> groups() const;

  // A segment begins: routers decide anew.
  void begin();
  // Whether numbers of rows follow from what the node makes: `announce` comes right behind it then, and starts their way to the host.
  bool decides(const Node& node) const;
  void announce(const Node& node, Segment segment);
  // Runs a call that touches dynamic rows.
  void run(Call& call, Segment segment, std::size_t n);

  // The most that was held at once, what a call takes for itself included.
  std::int64_t peak_bytes() const { return peak_; }

 private:
  at::Tensor make(Value v, std::int64_t rows);
  std::int64_t rows_of(const Call& call);
  bool has_unknown_rows(const Node& node) const;
  void wait_for_counts(Value expert);
  void take_used_rows(const Node& route);
  void exchange(Call& call);
  void compute(Call& call);
  void measured(const std::function<void()>& work);

  const Graph& graph_;
  const std::vector<Type>& local_;
  std::vector<at::Tensor>& views_;
  at::Device device_;
  bool poison_;
  Transport* transport_;
  SideStream* side_;
  // By `expert` where the tokens are: exchanges, and of what `route` makes how many rows are used.
  std::map<Value, RowExchange> exchanges_;
  std::map<Value, RowCounts> used_;
  std::map<Value, std::size_t> announced_;           // by `expert`: work on the side stream that nobody has waited for
  std::map<Value, const Node*> with_unused_rows_;    // outputs of `route` as they were made: as many rows as there can be
  std::array<std::map<std::size_t, std::vector<Value>>, kSegments.size()> last_read_;    // values that a node is the last to read
  std::int64_t held_ = 0, peak_ = 0;
};

}    // namespace sheaf
