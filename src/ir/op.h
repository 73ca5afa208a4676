#pragma once
// What an op is: its rule, gradient, portable kernel and test cases, declared in one file of ops/ and one line of ops/op_list.inc.
#include <algorithm>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ir/attrs.h"
#include "ir/type.h"
#include "mesh/rule.h"

namespace at {
class Tensor;
}    // namespace at

namespace sheaf {

class Builder;
struct Grad;

// What a kernel gets. It writes into the outputs it is given and never keeps storage; an absent optional operand is an undefined tensor.
// Beware: *_out functions of ATen resize silently.
struct Args {
  std::span<const at::Tensor> in;
  std::span<at::Tensor> out;
  const Attrs& attrs;
  std::int64_t owner_begin = 0;    // first index of this rank's piece of the `owner` factor
  std::int64_t owner_end = 0;      // one behind its last
};

// Where test inputs of an operand are drawn from.
struct Domain {
  // routed: real, where the call's routing chose; slot, expert: that routing (ops/route.cpp); choice: distinct indices along the last dim.
  enum class Kind { real, positive, fraction, index, label, count, flag, ends, routed, slot, expert, choice } kind = Kind::real;
  std::string factor;    // index, label, choice: below the extent of this factor, a label may also be -100 (ignored); ends: rows that do
                         // not fall, up to it
};
inline const Domain Real{Domain::Kind::real, ""}, Positive{Domain::Kind::positive, ""}, Fraction{Domain::Kind::fraction, ""},
    Count{Domain::Kind::count, ""}, Flag{Domain::Kind::flag, ""};
inline Domain Index(std::string factor) { return {Domain::Kind::index, std::move(factor)}; }
inline Domain Label(std::string factor) { return {Domain::Kind::label, std::move(factor)}; }
inline Domain Ends(std::string factor) { return {Domain::Kind::ends, std::move(factor)}; }
inline Domain Choice(std::string factor) { return {Domain::Kind::choice, std::move(factor)}; }
// The case sizes e, b, s and k: how many e for every (b, s).
inline const Domain Routed{Domain::Kind::routed, ""}, Slot{Domain::Kind::slot, ""}, Expert{Domain::Kind::expert, ""};

// One set of shapes and attributes to test with. Small, uneven extents find most.
struct Case {
  std::vector<std::pair<std::string, Shape>> dims;    // factor -> {extent}; ".." -> all its extents
  std::vector<Domain> domain;                         // per operand; the last one holds for the rest
  Attrs attrs;
  std::vector<std::size_t> absent;    // optional operands left out
};

// Has no default constructor: an op without cases does not compile.
class Cases {
 public:
  Cases(std::initializer_list<Case> cases) : cases_(cases) {}
  auto begin() const { return cases_.begin(); }
  auto end() const { return cases_.end(); }

 private:
  std::vector<Case> cases_;
};

using Types = std::vector<const Type*>;    // per operand; nullptr: absent

// Plain function pointers, not std::function: at::Tensor may stay incomplete here, and a captureless lambda converts.
struct OpDef {
  std::string_view doc;    // formula, and the source of it
  std::string_view rule;
  std::string (*rule_of)(const Attrs&, const Types&) = nullptr;    // where letters depend on attributes or types
  std::int64_t (*extent_of)(std::string_view factor, const Attrs&, const Types&) = nullptr;    // of a factor that no operand carries
  DType (*dtype)(const Attrs&, const Types&, std::size_t output) = nullptr;                    // default: that of operand 0
  double (*flops)(const Attrs&, const Types&) = nullptr;                                       // default: what the rule implies
  Values (*grad)(const Grad&) = nullptr;                                                       // one per operand; absent: no gradient
  std::size_t grad_outputs = SIZE_MAX;                                                         // outputs from this one on have no gradient
  std::string_view no_gradient;                                                                // why a differentiable operand has none
  std::int64_t (*routed)(const Attrs&, const Types&) = nullptr;    // of the outputs; default: as an operand whose (e, b, s) lead an output
  void (*kernel)(const Args&) = nullptr;                           // portable, by ATen; nullptr: storage only
  // Of an op on routed tensors: the same on whole ones [e, b, s, ..], of which what was not chosen is not read and is written as 0. Integer
  // mode and the tests of rules run it: it is what the op means, and the kernel is compared with it.
  void (*meaning)(const Args&) = nullptr;
  // Of a fused op: the nodes that it stands for, "n = rms_norm x, w {eps}; y = rotate n, cos, sin {inverse=false} -> y" (ops/parts.h). It
  // is what the op means; rules and placements are checked on the parts, before they are fused.
  std::string_view parts;
  bool joined = false;      // it stands for several einsums: their placements are checked before they are joined
  bool exact = false;       // the kernel is exact on int64: integer mode uses it
  bool in_place = false;    // out[i] may share storage with in[i] of equal type
  bool view = false;        // an output is a part of an operand, or the operands are parts of the output: storage only, the kernel is for
                            // interpreters
  bool atomic_adds = false;    // on accelerators the kernel adds in no fixed order: its last bits vary, so `deterministic` refuses it there
  Cases cases;

  // From the list line.
  std::string_view name = {};
  std::vector<std::string_view> operands = {};
  std::vector<std::string_view> attributes = {};
  std::vector<Attr> attribute_types = {};    // a value of the type of each
};

// The rule of one call: `..` expanded, absent operands left out.
Rule rule_for(const OpDef& op, const Attrs& attrs, const Types& in);
// Types of the outputs. Throws UserError naming the op, the factor and both extents.
std::vector<Type> infer(const OpDef& op, const Attrs& attrs, const Types& in);
double flops(const OpDef& op, const Attrs& attrs, const Types& in);
double bytes(const std::vector<Type>& out, const Types& in);

// What a rank holds of the factor that an op owns by index, [begin, end): read off the placement of the operand or output that has it.
// Nothing: [0, 0).
std::pair<std::int64_t, std::int64_t> owned_piece(const Rule& rule, const Types& in, const Types& out, const Mesh& mesh, std::int64_t rank);

inline bool has_operand(const OpDef& op, std::string_view name) {
  return std::find(op.operands.begin(), op.operands.end(), name) != op.operands.end();
}

// Takes tensors from one placement to another: reshard, and the ops that it is lowered to.
bool is_move(const OpDef& op);
// Takes routed rows between their tokens and their experts, alone or with a dispatch before it or a combine behind it. The last operand
// says the experts of the rows where the tokens are.
bool exchanges_rows(const OpDef& op);

// Every dim of every operand and output is the same `..`, or no dim at all (a scalar): works element by element on flat storage.
bool is_elementwise(const OpDef& op);
// The same of one call, by its expanded rule: all operands and outputs that are no scalars have the same factors, none of them whole.
bool is_elementwise(const Rule& rule);

}    // namespace sheaf
