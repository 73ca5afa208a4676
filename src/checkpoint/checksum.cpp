#include "checkpoint/checksum.h"

#define XXH_INLINE_ALL
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

namespace sheaf {

std::string checksum(std::span<const std::byte> bytes, const std::function<void(std::size_t)>& read) {
  constexpr std::size_t kBlock = std::size_t{1} << 24;
  XXH3_state_t state;
  XXH3_64bits_reset(&state);
  while (!bytes.empty()) {
    const auto block = bytes.first(std::min(kBlock, bytes.size()));
    XXH3_64bits_update(&state, block.data(), block.size());
    if (read) read(block.size());
    bytes = bytes.subspan(block.size());
  }
  return fmt::format("{:016x}", XXH3_64bits_digest(&state));
}

}    // namespace sheaf
