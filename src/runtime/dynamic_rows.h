#pragma once
// Routed values of experts that are cut over ranks: how many rows a rank holds is known only when the router has decided. They lie outside
// of the plan's arena, in memory that grows as needed (c10's allocator, which keeps what it was given back), from the call that makes them
// to the last one of the segment that reads them.
#include <functional>
#include <map>

#include "runtime/call.h"
#include "runtime/row_exchange.h"

namespace sheaf {

class DynamicRows {
 public:
  // local: types of the rank's pieces by Value::id. views: of all values, by Value::id; those of dynamic values are set here.
  DynamicRows(const Graph& graph, const std::vector<Type>& local, std::vector<at::Tensor>& views, at::Device device, bool poison);

  static bool touches(const Graph& graph, const Node& node);
  void add_exchange(const Node& node, Transport& transport, const std::string& what);
  std::vector<Group> groups() const;

  // A segment begins: routers decide anew.
  void begin() {
    for (auto& [v, exchange] : exchanges_) exchange.forget();
  }
  // Runs a call that touches dynamic rows.
  void run(Call& call, Segment segment, std::size_t n);

  // The most that was held at once, what a call takes for itself included.
  std::int64_t peak_bytes() const { return peak_; }

 private:
  at::Tensor make(Value v, std::int64_t rows);
  std::int64_t rows_of(const Call& call);
  void exchange(Call& call);
  void compute(Call& call);
  void measured(const std::function<void()>& work);

  const Graph& graph_;
  const std::vector<Type>& local_;
  std::vector<at::Tensor>& views_;
  at::Device device_;
  bool poison_;
  std::map<Value, RowExchange> exchanges_;                                               // by `expert` where the tokens are
  std::array<std::map<std::size_t, std::vector<Value>>, kSegments.size()> last_read_;    // values that a node is the last to read
  std::int64_t held_ = 0, peak_ = 0;
};

}    // namespace sheaf
