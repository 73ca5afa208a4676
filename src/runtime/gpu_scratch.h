#pragma once
// What calls take of an NVIDIA GPU for themselves, for plans that are made without one: what the kernels of kernels/cuda and the libraries
// below them ask for. A run measures it (scratch_plan.h); tests/gpu/gpu_scratch_test.cpp holds these numbers against measured ones.
#include <cstdint>
#include <optional>

#include "ir/graph.h"

namespace sheaf {

inline constexpr std::int64_t kGemmWorkspace = std::int64_t{32} << 20;    // bytes, on 256 of them: of every product by cuBLASLt

// Of attention_grad by cuDNN (9.19, on Hopper). in: pieces of a rank.
std::int64_t attention_grad_scratch(const Types& in, bool deterministic);

// Bytes. What comes to a few MiB whatever the call (sums of parts, sorted ids, counts) is 0 here. nullopt: not known, the op's own kernel
// runs. in, out: pieces of a rank.
std::optional<std::int64_t> gpu_scratch(const Node& node, const Types& in, const Types& out, bool deterministic);

}    // namespace sheaf
