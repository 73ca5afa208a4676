#pragma once
// Searches over whole corpora, at the speed of memory. Compiled with -O3.
#include <cstddef>
#include <cstdint>
#include <span>

namespace sheaf {

// Index of the first element that is no id of a vocabulary of `vocab` entries, negative ids included; -1: all are.
std::int64_t first_not_below(std::span<const std::uint8_t> ids, std::int64_t vocab);
std::int64_t first_not_below(std::span<const std::uint16_t> ids, std::int64_t vocab);
std::int64_t first_not_below(std::span<const std::int32_t> ids, std::int64_t vocab);

}    // namespace sheaf
