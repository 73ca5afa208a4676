#pragma once
// The rule of an op: one line of index letters from which shape inference, sharding, partial sums and cost follow.
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "mesh/placement.h"

namespace sheaf {

// "b s k, h k -> b s h; linear x w"
//   operands -> outputs, each a list of factors (index letters, blank between them). `()` is a scalar; `..` stands for any dims, the
//   same wherever it appears. A factor that an operand has and an output lacks is reduced away in that output: shard it and the output is
//   partial. Clauses, separated by ';':
//     full d      must be whole on every rank (softmax row, norm dim)
//     owner v     an indexed dim: a shard answers only for the indices that it owns, others give 0
//     linear x w  operands through which a partial may pass, one at a time
//     add x y     operands through which a partial passes only if all of these are partial
//     reduce max  how a factor that an output lacks is reduced (default: sum)
struct Rule {
  using Factors = std::vector<std::string>;

  std::vector<Factors> in, out;
  std::set<std::string> full, owner;
  std::vector<std::string> linear, add;    // operand names
  Reduction reduction = Reduction::sum;

  static Rule parse(std::string_view text);    // throws InternalError: rules are ours
  std::string print() const;

  bool is_full(const std::string& factor) const { return full.contains(factor) || (full.contains("..") && factor.starts_with("..")); }
};

// Whether a factor is among these, and which dim is its: their number if it is none of them.
bool has(const Rule::Factors& factors, std::string_view factor);
std::int64_t dim_of(const Rule::Factors& factors, std::string_view factor);

// The same rule with `..` replaced by factors "..0", "..1" for these operands. Throws UserError if the numbers of dims do not fit.
Rule expanded(const Rule& rule, const std::vector<std::size_t>& in_ndims, std::string_view op);

// Extents of all factors, from the operands' shapes. Throws UserError: "matmul: factor 'k' is 8 in input 0 (dim 1) but 6 in input 1 (dim
// 0)".
struct Extents {
  std::vector<std::pair<std::string, std::int64_t>> of;    // in order of first appearance
  std::int64_t operator[](std::string_view factor) const;
};
Extents extents(const Rule& rule, const std::vector<Shape>& in_shapes, std::string_view op);
Shape shape_of(const Rule::Factors& factors, const Extents& extents);

// Work of one call: product of all extents, times 2 if something is summed (a multiply and an add), per element.
double product_flops(const Rule& rule, const Extents& extents);

}    // namespace sheaf
