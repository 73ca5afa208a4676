#pragma once
// Runs the ops that reshards are lowered to (ops/moves.h) on one rank, over a Transport.
#include <memory>
#include <span>
#include <string>

#include "comm/transport.h"
#include "ir/graph.h"
#include "runtime/kernels/kernel_table.h"

namespace sheaf {

// The ranks that differ from `rank` in these atoms only, in order of their coordinates on them.
Group group_of(const Mesh& mesh, const std::vector<Atom>& over, std::int64_t rank);

// One node's communication. What goes where is worked out once, from the placements of its operands and outputs. Sums are made in the order
// of the group, each by one rank, so that all ranks get the same bits; with bf16 in fp32, rounded once.
class Collective {
 public:
  // What ATen takes for a sum is measured once, by making one; for plans, of tensors that need not fit here, a small one stands for it.
  enum class Sums { as_they_are, small };
  // what: for the message of a rank that waits in vain. device: of the tensors; on cuda the current one.
  Collective(const Graph& graph, const Node& node, Transport& transport, std::string what, DeviceKind device = DeviceKind::cpu,
             Sums sums = Sums::as_they_are);
  ~Collective();
  Collective(Collective&&) noexcept;

  // Staging for pieces that are not contiguous where they lie, and for the terms of sums, in bytes.
  std::int64_t scratch_bytes() const;
  // Groups that it speaks to; Transport::prepare wants them before the first run.
  const std::vector<Group>& groups() const;
  // in, out: the rank's pieces, contiguous. scratch: scratch_bytes() on the same device.
  void run(std::span<const at::Tensor> in, std::span<at::Tensor> out, void* scratch) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}    // namespace sheaf
