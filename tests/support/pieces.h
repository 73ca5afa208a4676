#pragma once
// The piece of a whole tensor that a rank holds, as a tensor of its own.
#include <ATen/core/Tensor.h>

#include "mesh/placement.h"

namespace sheaf::testing {

inline at::Tensor piece_of(const at::Tensor& whole, const Placement& p, const Mesh& mesh, std::int64_t rank) {
  at::Tensor t = whole;
  const Box box = local_box(whole.sizes().vec(), p, mesh, rank);
  for (std::size_t d = 0; d < box.size(); ++d) t = t.slice(static_cast<std::int64_t>(d), box[d].first, box[d].second);
  if (!p.flat.empty()) {
    const auto [begin, end] = local_flat(whole.sizes().vec(), p, mesh, rank);
    t = t.contiguous().view({-1}).slice(0, begin, end);
  }
  return t.clone(at::MemoryFormat::Contiguous);
}

}    // namespace sheaf::testing
