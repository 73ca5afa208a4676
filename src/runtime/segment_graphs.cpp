#include "runtime/segment_graphs.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"
#include "passes/plan_memory.h"

namespace sheaf {
namespace {

constexpr int kStepsCallByCall = 2;

// "": it asks the host for nothing but to be launched.
std::string why_not(const Call& call, const Transport* transport) {
  if (call.dynamic) return "how many rows of experts a rank holds is known only when the router has decided";
  if (call.collective && communicates(*call.node) && !transport->in_stream_order())
    return fmt::format("the transport '{}' waits on the host", transport->name());
  if (call.row && !call.row->capture_safe) return "its kernel reads values on the host";
  return "";
}

std::string blocking_call(Segment segment, const std::vector<Call>& calls, const Transport* transport) {
  for (std::size_t n = 0; n < calls.size(); ++n)
    if (const std::string why = why_not(calls[n], transport); !why.empty())
      return fmt::format("{} (node {}, {}: {})", name(segment), n, calls[n].node->op->name, why);
  return "";
}

}    // namespace

SegmentGraphs::SegmentGraphs(std::optional<bool> wanted, DeviceKind device, const Transport* transport, const Calls& calls)
    : on_(wanted.value_or(true) && device == DeviceKind::cuda) {
  if (wanted == true && device != DeviceKind::cuda) user_error("\"run.cuda_graphs\": true: on {} there are none", name(device));
  if (!on_) return;
  for (const Segment s : kSegments) {
    One& one = segments_[static_cast<std::size_t>(s)];
    const auto& list = calls[static_cast<std::size_t>(s)];
    one.empty = std::none_of(list.begin(), list.end(), [](const Call& call) { return call.launches(); });
    one.blocked = blocking_call(s, list, transport);
    if (wanted == true && !one.blocked.empty()) user_error("\"run.cuda_graphs\": true: no graph can hold {}", one.blocked);
  }
}

void SegmentGraphs::begin_step() {
  if (thread_ != std::this_thread::get_id()) thread_ = std::this_thread::get_id(), steps_ = 0;
  ++steps_;
}

void SegmentGraphs::run(Segment segment, const std::function<void()>& calls) {
  One& one = segments_[static_cast<std::size_t>(segment)];
  if (!on_ || one.empty || !one.blocked.empty() || (!one.graph && steps_ <= kStepsCallByCall)) return calls();
  if (!one.graph) {
    try {
      one.graph = capture_graph(calls);
    } catch (const RankFailure&) {
      throw;
    } catch (const std::exception& error) {
      SHEAF_CHECK(false, "no CUDA graph could be made of {} (\"run.cuda_graphs\": false does without): {}", name(segment), error.what());
    }
  }
  one.graph->launch();
}

std::string SegmentGraphs::text() const {
  if (!on_) return "";
  std::vector<std::string> captured, not_captured;
  for (const Segment s : kSegments) {
    const One& one = segments_[static_cast<std::size_t>(s)];
    if (!one.empty) (one.blocked.empty() ? captured : not_captured).emplace_back(one.blocked.empty() ? name(s) : one.blocked);
  }
  return fmt::format("CUDA graphs: {}{}", captured.empty() ? "none" : join(captured, ", "),
                     not_captured.empty() ? "" : "; not for " + join(not_captured, "; "));
}

#ifndef SHEAF_CUDA
std::unique_ptr<CapturedGraph> capture_graph(const std::function<void()>&) { SHEAF_CHECK(false, "a graph without a GPU"); }
#endif

}    // namespace sheaf
