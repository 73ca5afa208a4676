#pragma once
// Small collectives on the host, of text, over all ranks of a transport: for set-up and agreement, not for tensors. All ranks make the same
// calls in the same order. They throw what exchange throws.
#include <string>
#include <vector>

#include "comm/transport.h"

namespace sheaf {

// The texts of all ranks, by rank.
std::vector<std::string> all_gather_text(Transport& transport, const std::string& text, std::string_view what);

// The root's text, on all ranks; what the others hand in is not looked at.
std::string broadcast_text(Transport& transport, const std::string& of_root, int root, std::string_view what);

// Returns when all ranks have called it.
void barrier(Transport& transport, std::string_view what);

// UserError on all ranks unless all have the same value: names the ranks that differ from most, both values (shortened) and `what` it is
// ("the plan", "run.json").
void expect_equal(Transport& transport, const std::string& value, std::string_view what);

}    // namespace sheaf
