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
//
// routed = K > 0: a tensor [e, b, s, ..] of which only those (e, b, s) are stored that a router chose, K of the e for every (b, s). Rules,
// placements and partial sums see its four or more dims; a kernel sees its rows, sorted by (e, b, s), as [1, 1, rows, ..].
struct Type {
  DType dtype = DType::fp32;
  Shape shape;
  Placement placement;
  std::int64_t routed = 0;

  // What is stored of a whole tensor, or of a local one whose shape this is: of a routed one the most that there can be. All of them are
  // chosen where e is whole; a rank that holds some of the experts has fewer.
  Shape stored() const;
  std::int64_t bytes() const { return num_elements(stored()) * size_bytes(dtype); }
  bool operator==(const Type&) const = default;
};

std::string print(const Type& type, const Mesh& mesh);    // "bf16[4, 128] [a1|.]"; routed: "bf16[2 of 8, 4, 128, 64]"
Type parse_type(std::string_view text, const Mesh& mesh);

}    // namespace sheaf
