#pragma once
// How a binary einsum becomes one matrix product: its factors grouped by role.
#include "ir/op.h"
#include "mesh/rule.h"

namespace sheaf {

// The factors by role; batch, m, n in the order of the output, k in the order of x.
struct Contraction {
  Rule::Factors batch, m, n, k;
  std::vector<std::int64_t> x_only, y_only;    // dims that are summed before the contraction
  Rule::Factors x, y;                          // what is left of the operands then
  Rule::Factors out;
};

// Of the attribute `rule` of a binary einsum.
Contraction contraction(const Rule& rule);
// The same, parsed once per thread and rule.
const Contraction& contraction(const std::string& rule);
const Contraction& contraction(const Attrs& einsum);

// Of einsum_each and einsum_sum, whose attribute `rule` is those of several einsums, "b s k, n k -> b s n | b s k, i k -> b s i": each of
// them, and the attributes of an einsum of that rule.
const std::vector<std::string>& joined_rules(const Attrs& attrs);
Attrs einsum_attrs(const Attrs& joined, std::size_t i);
// Rules of einsums as one. Where they have the same letters these are the same factors if they are among `shared`. Others are of one einsum
// alone, and whole: a rule has no word for a factor that the results of the others do not depend on. On a mesh they may be cut: placements
// are checked on the einsums.
Rule as_one(const std::vector<std::string>& rules, const Rule::Factors& shared);

// The attribute `dtype` of an einsum: of the result, `same` as operand 0. Throws UserError.
DType einsum_dtype(const Attrs& attrs, const Types& in, std::size_t output);

}    // namespace sheaf
