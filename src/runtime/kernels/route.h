#pragma once
// Device kernels that count and sort the decisions of a router: raw pointers and a stream, nothing read back by the host. Each returns the
// run-time library's error text, nullptr if all is well. The ops' own kernels are the portable twins and the oracle.
#include <cstdint>

namespace sheaf {

inline constexpr std::int64_t kMostExpertsToSort = 512;

// Of n ids those of the experts [begin, end). place: where each expert lies, nullptr: at its own number.
struct ExpertIds {
  const std::int32_t *ids, *place;
  std::int64_t n;
  std::int32_t begin, end;
};

// Into how many pieces the ids are cut. `counts` below is [pieces, end - begin]: room for the ids that each piece has of each expert.
std::int64_t num_pieces(std::int64_t ids);

// out[e] = how many ids are begin + e.
const char* count_experts_device(float* out, std::int32_t* counts, const ExpertIds& ids, void* stream);

// The ids of [begin, end) by expert, then by place: slot, expert [capacity] (ops/routing.h); behind the last row -1 and the largest number.
const char* route_device(std::int32_t* slot, std::int32_t* expert, std::int64_t capacity, std::int32_t* counts, const ExpertIds& ids,
                         void* stream);

}    // namespace sheaf
