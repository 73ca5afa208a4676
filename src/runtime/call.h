#pragma once
// One call of a plan: a node with the kernel that was chosen for it and the views that it works on.
#include <ATen/core/Tensor.h>

#include "ir/graph.h"
#include "runtime/collectives.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

struct Call {
  const Node* node;
  const KernelRow* row;    // nullptr: the op's own kernel
  std::vector<at::Tensor> in, out;
  void* scratch = nullptr;
  std::int64_t scratch_bytes = 0;

  bool stored = false;                            // nothing to do: its operands and outputs lie in one another
  std::vector<at::Tensor> gaps;                   // pack in the arena: bytes between members, which must read as zeros
  std::pair<std::int64_t, std::int64_t> owned;    // of the factor that the op owns by index
  const Collective* collective = nullptr;
  std::vector<std::size_t> awaits;    // collectives of the segment that must be done before this call
  bool decides = false;               // numbers of such rows follow from what it makes
  bool dynamic = false;               // has rows that are known only when the router has decided (runtime/dynamic_rows.h)

  std::string_view kernel() const { return collective ? "transport" : row ? row->name : "aten"; }
  bool launches() const { return !stored || !gaps.empty(); }    // false: storage only
  void launch() {
    const Args args{in, out, node->attrs, owned.first, owned.second};
    if (row)
      row->launch(args);
    else if (node->op->kernel)
      node->op->kernel(args);
    for (at::Tensor& gap : gaps) gap.zero_();
  }
};

}    // namespace sheaf
