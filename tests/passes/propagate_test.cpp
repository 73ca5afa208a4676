// What propagate refuses: reshards that are large and that nobody asked for.
#include <gtest/gtest.h>

#include "ops/op_table.h"
#include "passes/pass.h"
#include "support/files.h"

using namespace sheaf;

namespace {

// Attention over rows that are cut over sp, with so many heads.
void place_attention(int heads, int tokens) {
  const std::string heads_d = fmt::format("{}, 1, 128", heads);
  std::string text = "mesh a0=4    axes sp=a0\n";
  text += fmt::format("input @q bf16[2, {}, {}] [.|a0|.|.|.]\n", tokens, heads_d);
  for (const char* name : {"k", "v"}) text += fmt::format("input @{} bf16[2, {}, {}, 128] [.|a0|.|.]\n", name, tokens, heads);
  text += "first\n  %0, %1 = attention @q, @k, @v, _, _ {causal=true, scale=0.1, window=0}\n";
  verify(propagate(parse_graph(text, all_ops()), {}), Level::l2);
}

}    // namespace

TEST(Propagate, heads_take_the_tokens_atoms_and_what_cannot_is_an_error_where_it_is_large) {
  place_attention(4, 16384);
  place_attention(2, 64);    // small: all ranks do the same
  EXPECT_USER_ERROR(place_attention(2, 131072), "would be gathered over sp (128 MiB on every rank) in every step, for attention q");
}
