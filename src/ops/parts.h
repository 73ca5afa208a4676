#pragma once
// A fused op is a name for a few nodes, its parts. From their text come its portable kernel, its meaning in integer mode, and the pattern
// by which the pass `fuse` finds them in a graph. A device's kernel does the same in one pass over memory.
#include <functional>
#include <optional>

#include "ops/op_table.h"

namespace sheaf {

// "n = rms_norm x, w {eps}; y = rotate n, cos, sin {interleaved, inverse=false} -> y"
//   Names are operands of the fused op or results of parts before. An attribute without a value is the fused op's of the same name; all of
//   a part's attributes are listed. A rule stands in front of the others, as in IR text: "{b s k, b s -> b s k; dtype=same}", and means
//   these letters; dtype=same means as well a node that names the dtype of its first operand. Behind the last arrow: the results that are
//   the fused op's outputs, in order. Nothing else of them is kept, but a result that is made of the fused op's operands alone may have
//   readers outside of the parts: it is computed twice then.
struct Parts {
  struct Part {
    const OpDef* op;
    std::vector<std::string> out, in;
    std::vector<std::pair<std::string, std::optional<Attr>>> attrs;
  };
  std::vector<Part> parts;
  std::vector<std::string> outputs;
};
const Parts& parts_of(const OpDef& fused);    // InternalError if its text is none

// Runs the parts, each by `run`, with results of the dtypes that they infer, or all of i64.
using RunPart = std::function<void(const OpDef&, const Rule&, const Args&)>;
void run_parts(const OpDef& fused, const Args& args, const RunPart& run, bool integer);

// The portable kernel of a fused op.
template <OpId id>
void parts_kernel(const Args& args) {
  run_parts(
      op(id), args, [](const OpDef& part, const Rule&, const Args& a) { part.kernel(a); }, false);
}

// Its meaning on whole tensors where there are routed ones, as OpDef::meaning.
template <OpId id>
void parts_meaning(const Args& args) {
  run_parts(
      op(id), args, [](const OpDef& part, const Rule&, const Args& a) { part.meaning ? part.meaning(a) : part.kernel(a); }, false);
}

}    // namespace sheaf
