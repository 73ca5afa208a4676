#pragma once
// Every value gets its bytes: an offset in one of two blocks per rank, from liveness. Pure arithmetic.
#include <map>

#include "ir/graph.h"
#include "passes/columns.h"

namespace sheaf {

// persistent: across steps (states, inputs, accumulators, arguments, constants); arena: within a step; shared: another plan's persistent.
enum class Block { persistent, arena, shared };

struct Place {
  Block block = Block::arena;
  std::int64_t offset = -1;    // bytes; -1: the value has no storage (nothing defines it)
  std::int64_t pitch = 0;      // bytes from a token of [b, s, ..] to the next, where others lie beside it (columns.h); 0: no gaps
};

struct NodeMemory {
  std::int64_t scratch_bytes = 0;     // given: what the node's kernel row allocates inside
  std::int64_t scratch_offset = 0;    // result, in the arena
};

// What lies in the arena while the nodes from `begin` to `end` run (counted over all segments): a value with those that share its bytes, or
// what a node's kernel takes (value absent, begin = end).
struct ArenaItem {
  Value value;
  std::int64_t offset = 0, bytes = 0;
  int begin = 0, end = 0;
};

struct MemoryPlan {
  std::vector<Place> places;                                      // by Value::id
  std::array<std::vector<NodeMemory>, kSegments.size()> nodes;    // as graph.segments
  std::int64_t persistent_bytes = 0, arena_bytes = 0;
  std::vector<ArenaItem> arena;
  // What the persistent block holds, in bytes, by kind of value.
  struct {
    std::int64_t parameters = 0, gradients = 0, optimizer = 0, other = 0;
  } held;
};

// scratch: bytes per node, as graph.segments. Arguments lie first in the persistent block and metrics after them, each without gaps, in
// order of declaration: one copy each way a step. `set` and in-place ops share storage where no reader of the old content remains.
// shared: values that lie in another plan's persistent block, at these offsets. columns: what kernels can do with.
using SharedStorage = std::map<Value, std::int64_t>;
MemoryPlan plan_memory(const Graph& graph, const std::array<std::vector<std::int64_t>, kSegments.size()>& scratch,
                       const SharedStorage& shared = {}, const ColumnMasks& columns = {});
// Bytes from the beginning of v to behind its last element.
std::int64_t extent_of(const Graph& graph, const Place& place, Value v);

// Nothing is left to do for the node: its operands and outputs lie in one another.
bool is_stored(const Graph& graph, const MemoryPlan& plan, const Node& node);

// Sends something: a move, but for the local ones.
bool communicates(const Node& node);

// A collective may run beside the nodes behind it: the first of its segment that reads its result waits for it, or the segment's end does;
// of reductions at most two are under way, so that gradients which nothing reads before the epilogue do not stay whole until then. Until
// then its operands and its scratch stay. For each node of a segment: the position of the node before which it is waited for (the segment's
// size: at its end); -1: it is no collective.
std::vector<int> waited_at(const std::vector<Node>& nodes);

// L5: no two values that are live at the same time overlap, but for those that may share. Throws InternalError naming both.
void verify_memory(const Graph& graph, const MemoryPlan& plan);

// The layout of argument and metric slots.
inline constexpr std::int64_t kSlotBytes = 8;

}    // namespace sheaf
