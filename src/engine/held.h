#pragma once
// What a rank holds of a state, as boxes of the global tensor: for whatever goes between states and files.
#include <functional>
#include <vector>

#include "mesh/boxes.h"
#include "runtime/executor.h"

namespace sheaf {

// In order of storage: the boxes one after the other, each row-major, are what lies on the rank.
std::vector<Box> held_boxes(const Graph& graph, Value v, std::int64_t rank);
// Of the ranks that hold the same, the one with the lowest number: it speaks for all.
bool is_first_holder(const Graph& graph, Value v, std::int64_t rank);

// Calls run(first, at, count) for the runs of consecutive elements of a box of a row-major tensor: `first` in the tensor, `at` in the box.
void for_each_run(const Shape& shape, const Box& box,
                  const std::function<void(std::int64_t first, std::int64_t at, std::int64_t count)>& run);

// Masters may be stored in two halves (pass split_masters): what files hold is the number. The type that a state has there, fp32 of a split
// one, its bytes on this rank, and its numbers.
Type logical_type(const Graph& graph, Value v);
std::int64_t logical_bytes(const Executor& executor, Value v);
void read_logical(const Executor& executor, Value v, void* to);
// Of a split one: writes its copy in the compute dtype too, which is the other half.
void write_logical(Executor& executor, Value v, const void* from);

// All of a persistent value on rank 0, of its logical type, row-major; empty on the others. All ranks call it. transport: nullptr for one
// rank.
std::vector<std::byte> gather_on_first(const Executor& executor, Value v, Transport* transport);

}    // namespace sheaf
