#pragma once
// Routed tensors, [e, b, s, ..] of which a router chose K of the e for every (b, s). Two values say which, both routed i32 [e, b, s] and
// made by `route`:
//
//                     in a row (what kernels see)                     whole (what it means; integer mode)
//   slot              K t + k: the token t of the rank and which      k + 1; 0: not chosen
//                     of its choices this row is
//   expert            e, counted over all ranks                       1; 0: not chosen
//
// Rows are sorted by (e, b, s). `slot` counts the tokens of a rank, so it never leaves the placement that it was made for: dispatch and
// combine work there. `expert` goes with the rows to where the experts are.
#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

namespace sheaf {

// [begin, end) of the rows of each expert in [first, last), from `expert` of them all, which the host reads.
std::vector<std::pair<std::int64_t, std::int64_t>> rows_of_experts(const at::Tensor& expert, std::int64_t first, std::int64_t last);

// Of whole tensors: x where it was chosen, else 0. chosen: a whole slot or expert.
at::Tensor where_chosen(const at::Tensor& x, const at::Tensor& chosen);
// [1, 1, rows, ..] and [b, s, ..] as matrices.
at::Tensor as_rows(const at::Tensor& x);
at::Tensor as_tokens(const at::Tensor& x);

}    // namespace sheaf
