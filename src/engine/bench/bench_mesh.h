#pragma once
// Meshes in words, for benchmarks: "ep4+tp2+zero3".
#include <cstdint>
#include <string>

#include "base/json.h"

namespace sheaf {

// Words joined by +: ep, etp, tp, sp with a degree behind it, zero with a stage, dp for none of these. `ep` alone is as many ranks as there
// are experts for; `etp`, `tp` and `sp` alone are 2.
struct MeshWords {
  std::string text;
  bool experts = false;                                      // ep or etp is named; else experts are cut over tp
  std::int64_t tp = 1, sp = 1, ep = 1, etp = 1, zero = 0;    // ep 0: what fits
  bool operator==(const MeshWords&) const = default;
};
// UserError: not such a text.
MeshWords parse_mesh_words(const std::string& text);

// Degrees over a number of ranks: dp · sp · tp, and edp · ep · etp for experts.
struct BenchMesh {
  bool experts = false;
  std::int64_t ranks = 1, dp = 1, sp = 1, tp = 1, ep = 1, etp = 1, zero = 0;
  std::int64_t edp() const { return ranks / (ep * etp); }
};
// UserError: the degrees do not divide the ranks, or there are fewer experts than ep.
BenchMesh mesh_of(const MeshWords& words, std::int64_t ranks, std::int64_t num_experts);

std::string degrees_text(const BenchMesh& mesh);    // "dp 2 · tp 2, ep 4, ZeRO 3": degrees of 1 are left out
Json degrees_json(const BenchMesh& mesh);
// Sets the keys of a run: run.nproc, degrees, ZeRO. Small parameters are cut, too.
void set_mesh(Json& run, const BenchMesh& mesh);

}    // namespace sheaf
