#pragma once
// Rows of experts that are cut over ranks, as far as they can be told before a router has decided.
#include "ir/graph.h"

namespace sheaf {

// Bytes that they take at most in a step on a rank that has `load` times the mean, which is an equal share of all rows for each rank; never
// more than there can be. They lie outside of the plan's arena.
std::int64_t expert_row_bytes(const Graph& graph, double load);

// What a rank sends in an exchange of rows where experts have equally many tokens, in bytes.
double exchanged_bytes(const Graph& graph, const Node& node);

}    // namespace sheaf
