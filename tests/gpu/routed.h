#pragma once
// Calls on routed tensors (ops/routing.h) for tests of their CUDA rows: kernels see rows, `takes` and rules see whole tensors.
#include <string>
#include <vector>

#include "gpu/gpu.h"

namespace sheaf::testing {

// A router's decisions, drawn at random; of the experts this rank holds [begin, end).
struct Routing {
  const char* name;
  std::int64_t experts, b, s, k, begin, end;
  std::int64_t chosen;                  // only the first so many are ever chosen, the first of them more often
  at::Tensor ids = {};                  // [b, s, k]
  at::Tensor slot = {}, expert = {};    // as op route makes them, without what is free behind the rows

  Routing decided() const;
  std::int64_t rows() const { return slot.size(2); }
  std::int64_t capacity() const { return b * s * std::min(k, end - begin); }    // of what `route` writes
  Attrs route_attrs() const { return {{"experts", Int(experts)}}; }
};
inline std::ostream& operator<<(std::ostream& out, const Routing& r) { return out << r.name; }

struct Operand {
  at::Tensor tensor;    // undefined: absent
  bool routed = false;
};
using Operands = std::vector<Operand>;
std::vector<at::Tensor> tensors(const Operands& in);

// What rules and `takes` see.
struct WholeTypes {
  WholeTypes(const Operands& in, const Routing& routing);
  std::vector<Type> storage;
  Types types;
};

// Rows [1, 1, rows, tail..], or any tensor, of normal numbers on the host.
Operand random_rows(const Routing& routing, const Shape& tail, at::ScalarType dtype);
Operand random_numbers(const Shape& shape, at::ScalarType dtype);
Operand slots(const Routing& routing);
Operand experts(const Routing& routing);

Operands on_gpu(const Operands& operands);
Operands in_fp64(const Operands& operands);    // on the host

// Outputs as the op's rule says, full of NaN, on the device of the first operand.
std::vector<at::Tensor> outputs(std::string_view op, const Operands& in, const Attrs& attrs, const Routing& routing);
// The row that CUDA takes; nullptr: none.
const KernelRow* row_of(std::string_view op, const Operands& in, const Attrs& attrs, const Routing& routing);
// The op's own kernel; the row of this name, which must be the one taken.
std::vector<at::Tensor> run_portable(std::string_view op, const Operands& in, const Attrs& attrs, const Routing& routing);
std::vector<at::Tensor> run_row(std::string_view op, std::string_view row, const Operands& in, const Attrs& attrs, const Routing& routing);

// The largest |a - b| over the largest |b|: unlike a norm it does not forgive one wrong row among many. NaN if there is one.
double largest_error(const at::Tensor& a, const at::Tensor& b);
// The row on the GPU against the op's own kernel in fp64, printed; the same bits when it runs again.
void expect_near_fp64(std::string_view op, std::string_view row, const Operands& in, Attrs attrs, const Routing& routing, double bound);
// Against the op's own kernel on the host in the same dtypes, bit for bit.
void expect_equal(std::string_view op, std::string_view row, const Operands& in, const Attrs& attrs, const Routing& routing);

}    // namespace sheaf::testing
