#pragma once
// From one placement to another in steps, each of which is one collective over some atoms or a local operation.
#include <string_view>
#include <vector>

#include "mesh/placement.h"

namespace sheaf {

enum class Move { all_gather, all_to_all, reduce_scatter, all_reduce, slice, to_partial };
std::string_view name(Move move);    // as the ops are called

struct ReshardStep {
  Move move;
  std::vector<Atom> over;    // the group: ranks that differ in these atoms only
  Placement to;              // where the value lies behind it
};

// The steps of least cost: bytes that a rank sends, and a little for every collective, so that few large ones win. Only the atoms and dims
// in which the two differ are looked at; a run of atoms that stand side by side in both moves as one.
//   all_gather      minor atoms leave a dim, or the flat cut
//   all_to_all      minor atoms leave one dim and become the minor ones of another
//   reduce_scatter  partial atoms become the minor ones of a dim, or of the flat cut
//   all_reduce      partial atoms become replicated
//   slice           replicated atoms become the minor ones of a dim, or of the flat cut: no communication
//   to_partial      replicated atoms become partial: coordinate 0 keeps the value, the others hold zeros: no communication
// shape: global. Throws InternalError where there is no way: max and min only become replicated or sharded, never partial.
std::vector<ReshardStep> plan_reshard(const Placement& from, const Placement& to, const Shape& shape, std::int64_t element_bytes,
                                      const Mesh& mesh);

// The atoms over which a step goes from one placement to the other: those in which the two differ, in the order in which they cut.
std::vector<Atom> atoms_between(const Mesh& mesh, const Placement& from, const Placement& to);

// What one rank sends in a step that starts from `from`, in bytes, counted at the largest piece.
double sent_bytes(Move move, const std::vector<Atom>& over, const Placement& from, const Shape& shape, std::int64_t element_bytes,
                  const Mesh& mesh);

}    // namespace sheaf
