#include "data/scan.h"

#include <algorithm>
#include <limits>
#include <type_traits>

namespace sheaf {
namespace {

// As unsigned numbers negative ids are the largest of all, so one maximum finds both kinds. A block's maximum is a loop without exit,
// which the compiler vectorises; only a bad block is searched.
template <class T>
std::int64_t first_not_below(std::span<const T> ids, std::int64_t vocab) {
  using U = std::make_unsigned_t<T>;
  if (vocab > static_cast<std::int64_t>(std::numeric_limits<U>::max())) return -1;
  const U limit = static_cast<U>(std::max<std::int64_t>(vocab, 0));
  constexpr std::size_t kBlock = 1 << 14;
  for (std::size_t begin = 0; begin < ids.size(); begin += kBlock) {
    const auto block = ids.subspan(begin, std::min(kBlock, ids.size() - begin));
    U largest = 0;
    for (const T id : block) largest = std::max(largest, static_cast<U>(id));
    if (largest < limit) continue;
    const auto bad = std::find_if(block.begin(), block.end(), [&](T id) { return static_cast<U>(id) >= limit; });
    return static_cast<std::int64_t>(begin) + (bad - block.begin());
  }
  return -1;
}

}    // namespace

std::int64_t first_not_below(std::span<const std::uint8_t> ids, std::int64_t vocab) { return first_not_below<std::uint8_t>(ids, vocab); }
std::int64_t first_not_below(std::span<const std::uint16_t> ids, std::int64_t vocab) { return first_not_below<std::uint16_t>(ids, vocab); }
std::int64_t first_not_below(std::span<const std::int32_t> ids, std::int64_t vocab) { return first_not_below<std::int32_t>(ids, vocab); }

}    // namespace sheaf
