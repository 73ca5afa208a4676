#pragma once
// What the ops with an `owner` factor share: which indices this rank's piece answers for. ATen headers: op files only.
#include <ATen/core/Tensor.h>

namespace sheaf {

struct Owned {
  at::Tensor local;        // int64, inside [0, n): safe to index with, whatever the index was
  at::Tensor elsewhere;    // true where the index is negative (ignored) or in another rank's piece
};

// For a piece [begin, begin + n) of the indexed dim, n > 0.
inline Owned owned(const at::Tensor& indices, std::int64_t begin, std::int64_t n) {
  const at::Tensor ids = indices.to(at::kLong), local = ids.sub(begin);
  return {local.clamp(0, n - 1), ids.lt(0).logical_or(local.lt(0)).logical_or(local.ge(n))};
}

}    // namespace sheaf
