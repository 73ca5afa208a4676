// Tests of the test: graphs whose placements break one law each, and what L2 says of it.
#include <gtest/gtest.h>

#include "base/error.h"
#include "ops/op_table.h"
#include "support/files.h"

using namespace sheaf;

namespace {

constexpr const char* kDeclarations = R"(mesh a1=2 a0=2    axes dp=a1 tp=a0
input @x fp32[8, 16] [a1|.]
state @w fp32[32, 16] [a0|.] {trainable=true}
state @v fp32[32, 16] [.|.] {trainable=true}
state @n fp32[16] [.] {trainable=true}
carried @sum fp32[8, 32] [a1|a0]
first
)";

std::string refusal(const std::string& nodes) {
  const Graph graph = parse_graph(kDeclarations + nodes, all_ops());
  try {
    verify(graph, Level::l2);
  } catch (const InternalError& error) {
    return error.what();
  }
  return "none";
}

}    // namespace

TEST(VerifyPlacements, each_law_is_kept) {
  EXPECT_EQ(refusal("%0 = einsum @x, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|a0]"), "none");
  const std::pair<const char*, const char*> cases[] = {
      {"%0 = einsum @x, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|.]", "output 0 is not cut as factor n is"},
      {"%0 = einsum @x, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [.|a0]", "output 0 is not cut as factor b is"},
      {"%0 = einsum @w, _ {n k -> k; dtype=same} : fp32[16] [.]", "output 0 is not partial over what its rule sums"},
      {"%0 = einsum @x, @v {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|.] partial(a0)", "output 0 is not partial over what"},
      {"%0 = reshard @x : fp32[8, 16] [a0|.]\n%1 = einsum %0, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [a0|a0]",
       "cut by an atom that cuts another one"},
      {"%0 = reshard @x : fp32[8, 16] [a1|a0]\n%1 = einsum %0, @v {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|.] partial(a0)",
       "cuts factor k in another way"},
      {"%0 = reshard @x : fp32[8, 16] [a1|a0]\n%1 = rms_norm %0, @n {eps=1e-6} : fp32[8, 16] [a1|a0]", "which must be whole"},
      {"%0 = reshard @x : fp32[8, 16] [a1|.] partial(a0)\n%1 = silu %0 : fp32[8, 16] [a1|.] partial(a0)",
       "its rule lets no partial pass so"},
      {"%0 = reshard @x : fp32[8, 16] [a1|.] partial(a0)\n%1 = add %0, @x : fp32[8, 16] [a1|.] partial(a0)",
       "its rule lets no partial pass so"},
      {"%0 = reshard @x : fp32[8, 16] [a1|.] partial(a0)\n%1 = mul %0, %0 : fp32[8, 16] [a1|.] partial(a0)",
       "its rule lets no partial pass so"},
      {"%0 = reshard @x : fp32[8, 16] [.|.] partial(a0)\n%1 = reshard @x : fp32[8, 16] [.|.] partial(a1)\n"
       "%2 = add %0, %1 : fp32[8, 16] [.|.] partial(a0)",
       "is partial over other atoms than an operand before"},
      {"%0 = einsum @x, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|a0]\n%1 = reshard %0 : fp32[8, 32] [a1|.]\naccumulate @sum, %1",
       "accumulate @sum: lies at"},
      {"%0 = einsum @x, @w {b k, n k -> b n; dtype=same} : fp32[8, 32] [a1|a0]\n%1 = row_max %0 : fp32[8] [a1] partial(a0)",
       "has the wrong reduction"},
  };
  for (const auto& [nodes, wanted] : cases)
    EXPECT_NE(refusal(nodes).find(wanted), std::string::npos) << nodes << "\nfound: " << refusal(nodes);
}
