// The rows of a table of sharding rules that others have worked out and tried (by hand, and by systems such as DTensor and Megatron), by
// name: which factor shards, and what becomes partial. Our rules are written without looking at it; here they are held against it.
//
// Rows that concern no op of ours: 8-10, 34-40 (mixtures of experts), 22 (ring attention), 23 (lengths of documents: an operand here), 32
// (a tiled head), 41, 42, 44-46 (views, concatenation: dims are never fused or split), 47-51 (indexing beyond embedding and pick; a kv head
// is never repeated: it is a letter), 54 argmax, 56-60 (scans, dropout, initial numbers, convolutions), 62, 64, 67 (quantisation, Muon,
// kv-cache).
#include <gtest/gtest.h>

#include "base/text.h"
#include "ir/op.h"
#include "ops/op_table.h"

using namespace sheaf;

namespace {

struct Row {
  const char* row;
  const char* op;
  const char* attrs;        // "" or "{rule=...}"
  std::vector<Shape> in;    // empty shape of extent -1: absent
  const char* cut;          // the factor that is cut
  const char* out;          // per output: S(dim), P, Pmax, or - (a whole factor: may not be cut)
};

const Shape kAbsent = {-1};

Rule rule_of(const Row& row) {
  std::vector<Type> types;
  for (const Shape& shape : row.in) types.push_back({DType::fp32, shape, {}});
  Types pointers;
  for (std::size_t i = 0; i < types.size(); ++i) pointers.push_back(row.in[i] == kAbsent ? nullptr : &types[i]);
  const Attrs attrs = *row.attrs ? Attrs{{"rule", Text(row.attrs)}, {"dtype", Text("same")}} : Attrs{};
  return rule_for(op(row.op), attrs, pointers);
}

// What the outputs are where this factor is cut over an atom.
std::string outputs(const Rule& rule, const std::string& factor) {
  if (rule.is_full(factor)) return "-";
  std::vector<std::string> out;
  for (const Rule::Factors& factors : rule.out) {
    const auto at = std::find(factors.begin(), factors.end(), factor);
    out.push_back(at != factors.end() ? fmt::format("S({})", at - factors.begin()) : rule.reduction == Reduction::max ? "Pmax" : "P");
  }
  return join(out, " ");
}

constexpr const char *kLinear = "t k, n k -> t n", *kOfX = "t n, n k -> t k", *kOfW = "t n, t k -> n k";
const Shape q = {2, 6, 2, 3, 4}, k = {2, 6, 2, 4}, lse = {2, 6, 2, 3}, ends = {2, 2};

const std::vector<Row> kRows = {
    {"1 linear, tokens", "einsum", kLinear, {{5, 3}, {7, 3}}, "t", "S(0)"},
    {"1 backward, x", "einsum", kOfX, {{5, 7}, {7, 3}}, "t", "S(0)"},
    {"1 backward, w", "einsum", kOfW, {{5, 7}, {5, 3}}, "t", "P"},
    {"2 column-parallel", "einsum", kLinear, {{5, 3}, {7, 3}}, "n", "S(1)"},
    {"2 backward, x: Megatron's f", "einsum", kOfX, {{5, 7}, {7, 3}}, "n", "P"},
    {"2 backward, w", "einsum", kOfW, {{5, 7}, {5, 3}}, "n", "S(0)"},
    {"3 row-parallel", "einsum", kLinear, {{5, 3}, {7, 3}}, "k", "P"},
    {"3 backward, x", "einsum", kOfX, {{5, 7}, {7, 3}}, "k", "S(1)"},
    {"3 backward, w", "einsum", kOfW, {{5, 7}, {5, 3}}, "k", "S(1)"},
    {"6 bias", "add", "", {{5, 7}, {7}}, "d1", "S(1)"},
    {"6 bias, tokens", "add", "", {{5, 7}, {7}}, "d0", "S(0)"},
    {"6 backward, bias", "einsum", "t n -> n", {{5, 7}, kAbsent}, "t", "P"},
    {"7 bmm, batch", "einsum", "b i k, b k j -> b i j", {{2, 3, 4}, {2, 4, 5}}, "b", "S(0)"},
    {"11 embedding, tokens", "embedding", "", {{9, 4}, {2, 3}}, "..0", "S(0)"},
    {"11 backward", "embedding_grad", "", {{2, 3, 4}, {2, 3}, {9, 4}}, "..0", "P"},
    {"12 embedding, vocabulary", "embedding", "", {{9, 4}, {2, 3}}, "v", "P"},
    {"12 backward", "embedding_grad", "", {{2, 3, 4}, {2, 3}, {9, 4}}, "v", "S(0)"},
    {"13 embedding, hidden", "embedding", "", {{9, 4}, {2, 3}}, "k", "S(2)"},
    {"13 backward", "embedding_grad", "", {{2, 3, 4}, {2, 3}, {9, 4}}, "k", "S(1)"},
    {"14 norm, tokens", "rms_norm", "", {{5, 4}, {4}}, "..0", "S(0)"},
    {"14 backward: dw is partial", "rms_norm_grad", "", {{5, 4}, {4}, {5, 4}}, "..0", "S(0) P"},
    {"16 norm, hidden: in one op it is whole", "rms_norm", "", {{5, 4}, {4}}, "d", "-"},
    {"17 norm of q over heads", "rms_norm", "", {q, {4}}, "..2", "S(2)"},
    {"17 backward: dw is partial over heads", "rms_norm_grad", "", {q, {4}, q}, "..2", "S(2) P"},
    {"17 and over tokens", "rms_norm_grad", "", {q, {4}, q}, "..1", "S(1) P"},
    {"18 rope, heads", "rotate", "", {q, {2, 6, 2}, {2, 6, 2}}, "..0", "S(2)"},
    {"18 rope, positions", "rotate", "", {q, {2, 6, 2}, {2, 6, 2}}, "s", "S(1)"},
    {"19 attention, kv heads", "attention", "", {q, k, k, kAbsent, kAbsent}, "hk", "S(2) S(2)"},
    {"19 backward", "attention_grad", "", {q, k, k, q, lse, q, kAbsent, kAbsent}, "hk", "S(2) S(2) S(2)"},
    {"20 attention, query heads of a kv head", "attention", "", {q, k, k, ends, kAbsent}, "r", "S(3) S(3)"},
    {"20 backward: dk, dv are partial", "attention_grad", "", {q, k, k, q, lse, q, ends, kAbsent}, "r", "S(3) P P"},
    {"21 attention, tokens: whole here, heads take their atoms", "attention", "", {q, k, k, kAbsent, kAbsent}, "s", "-"},
    {"24 silu", "silu", "", {{5, 4}}, "..0", "S(0)"},
    {"24 gelu", "gelu", "", {{5, 4}}, "..1", "S(1)"},
    {"25 mul", "mul", "", {{5, 4}, {5, 4}}, "..0", "S(0)"},
    {"26 add", "add", "", {{5, 4}, {5, 4}}, "d0", "S(0)"},
    {"27 scale", "scale", "", {{5, 4}}, "..1", "S(1)"},
    {"29 softmax in pieces: maximum", "row_max", "", {{5, 9}}, "v", "Pmax"},
    {"29 softmax in pieces: sum", "sum_exp", "", {{5, 9}, {5}}, "v", "P"},
    {"30 loss, tokens", "einsum", "b s -> ()", {{2, 6}, kAbsent}, "s", "P"},
    {"30 token's loss", "nll", "", {{5}, {5}, {5}, {5}}, "..0", "S(0)"},
    {"30 count of tokens", "count_labels", "", {{2, 6}}, "..1", "P"},
    {"31 loss, vocabulary: the label's logit", "pick", "", {{5, 9}, {5}}, "v", "P"},
    {"31 backward, no communication", "softmax_grad", "", {{5, 9}, {5}, {5}, {5}, {5}}, "v", "S(1)"},
    {"33 logsumexp", "exp_weighted", "", {{5, 9}, {5}, {5}}, "v", "S(1)"},
    {"43 transpose", "einsum", "a b -> b a", {{3, 5}, kAbsent}, "a", "S(1)"},
    {"52 sum, the dim that goes", "einsum", "a b -> b", {{3, 5}, kAbsent}, "a", "P"},
    {"52 sum, the dim that stays", "einsum", "a b -> b", {{3, 5}, kAbsent}, "b", "S(0)"},
    {"52 backward", "broadcast", "b, a b -> a b", {{5}, {3, 5}}, "a", "S(0)"},
    {"54 maximum", "row_max", "", {{5, 9}}, "..0", "S(0)"},
    {"55 sum of squares", "sumsq", "", {{5, 4}}, "..0", "P"},
    {"61 cast", "cast", "", {{5, 4}}, "..0", "S(0)"},
    {"63 AdamW", "adamw", "", {{5, 4}, {5, 4}, {5, 4}, {5, 4}, {}, {}, {}, {}, {}, {}, {}}, "..0", "S(0) S(0) S(0)"},
    {"63 AdamW", "adamw_split", "", {{5, 4}, {5, 4}, {5, 4}, {5, 4}, {5, 4}, {}, {}, {}, {}, {}, {}, {}}, "..0", "S(0) S(0) S(0) S(0)"},
    {"65 accumulate", "accumulate", "", {{5, 4}, {5, 4}}, "..0", ""},
};

struct Partials {
  const char* row;
  const char* op;
  const char* attrs;
  std::vector<Shape> in;
  std::vector<std::string> linear, add;    // through which a partial passes
};
const std::vector<Partials> kPartials = {
    {"4 linear", "einsum", kLinear, {{5, 3}, {7, 3}}, {"x", "y"}, {}},    // one at a time: P times P is wrong
    {"6 bias: P + P only", "add", "", {{5, 7}, {7}}, {}, {"x", "y"}},
    {"12 backward, embedding", "embedding_grad", "", {{2, 3, 4}, {2, 3}, {9, 4}}, {"dy"}, {}},
    {"15 norm: its scale, never x", "rms_norm", "", {{5, 4}, {4}}, {"w"}, {}},
    {"15 backward, norm", "rms_norm_grad", "", {{5, 4}, {4}, {5, 4}}, {"dy"}, {}},
    {"18 rope", "rotate", "", {q, {2, 6, 2}, {2, 6, 2}}, {"x"}, {}},
    {"19 attention refuses", "attention", "", {q, k, k, kAbsent, kAbsent}, {}, {}},
    {"24 silu refuses", "silu", "", {{5, 4}}, {}, {}},
    {"25 mul: P R", "mul", "", {{5, 4}, {5, 4}}, {"x", "y"}, {}},
    {"26 add: P + P, never P + R", "add", "", {{5, 4}, {5, 4}}, {}, {"x", "y"}},
    {"27 scale", "scale", "", {{5, 4}}, {"x"}, {}},
    {"31 backward, loss", "softmax_grad", "", {{5, 9}, {5}, {5}, {5}, {5}}, {}, {"ds", "dp"}},
    {"52 sum", "einsum", "a b -> b", {{3, 5}, kAbsent}, {"x"}, {}},
    {"55 sum of squares refuses: reduce first", "sumsq", "", {{5, 4}}, {}, {}},
    {"61 cast refuses: a partial is not rounded before its sum", "cast", "", {{5, 4}}, {}, {}},
    {"63 AdamW refuses", "adamw", "", {{5, 4}, {5, 4}, {5, 4}, {5, 4}, {}, {}, {}, {}, {}, {}, {}}, {}, {}},
    {"65 accumulate: P + P", "accumulate", "", {{5, 4}, {5, 4}}, {}, {"target", "value"}},
};

}    // namespace

TEST(KnownRules, what_shards_and_what_becomes_partial) {
  for (const Row& row : kRows) EXPECT_EQ(outputs(rule_of(row), row.cut), row.out) << "row " << row.row << ": " << rule_of(row).print();
}
TEST(KnownRules, what_lets_a_partial_pass) {
  for (const Partials& row : kPartials) {
    const Rule rule = rule_of({row.row, row.op, row.attrs, row.in, "", ""});
    EXPECT_EQ(rule.linear, row.linear) << "row " << row.row;
    EXPECT_EQ(rule.add, row.add) << "row " << row.row;
  }
}
// Row 12 and 31: an index that a rank does not own is another's.
TEST(KnownRules, indexed_dims_have_owners) {
  for (const char* name : {"embedding", "embedding_grad", "pick", "pick_grad", "softmax_grad"})
    EXPECT_TRUE(Rule::parse(op(name).rule).owner.contains("v")) << name;
}
