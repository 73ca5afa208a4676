#pragma once
#include "ir/graph.h"

namespace sheaf {

enum class OpId {
#define OP(name, operands, attributes) name,
#define OP_N OP
#include "ops/op_list.inc"
#undef OP
#undef OP_N
};

const OpTable& all_ops();    // in the order of op_list.inc
const OpDef& op(OpId id);
const OpDef& op(std::string_view name);    // throws UserError

std::string ops_markdown();    // docs/ops.md

}    // namespace sheaf
