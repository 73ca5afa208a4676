#pragma once
#include <cstdint>

namespace sheaf {

// Members of a pack start at multiples of this many elements; the gap holds zeros, which no elementwise op of the epilogue changes.
inline constexpr std::int64_t kPackGranule = 16;
inline std::int64_t packed_extent(std::int64_t n) { return (n + kPackGranule - 1) / kPackGranule * kPackGranule; }

}    // namespace sheaf
