#pragma once
#include <string>
#include <vector>

#include "base/dtype.h"
#include "mesh/placement.h"

namespace sheaf {

// A handle: an index into Graph::values; default: absent.
struct Value {
  int id = -1;
  explicit operator bool() const { return id >= 0; }
  bool operator==(const Value&) const = default;
  auto operator<=>(const Value&) const = default;
};
using Values = std::vector<Value>;

// dtype, *global* shape and placement of a value.
struct Type {
  DType dtype = DType::fp32;
  Shape shape;
  Placement placement;

  std::int64_t bytes() const { return num_elements(shape) * size_bytes(dtype); }
  bool operator==(const Type&) const = default;
};

std::string print(const Type& type, const Mesh& mesh);    // "bf16[4, 128] [a1|.]"
Type parse_type(std::string_view text, const Mesh& mesh);

}    // namespace sheaf
