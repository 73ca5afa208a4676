#include "data/token_memory.h"

#include <algorithm>

#include "base/error.h"

namespace sheaf {

void TokenMemory::append(std::span<const std::int32_t> ids, std::span<const std::uint8_t> counts) {
  SHEAF_CHECK(counts.empty() || counts.size() == ids.size(), "{} marks for {} tokens", counts.size(), ids.size());
  if (!counts.empty()) counts_.resize(ids_.size(), 1);    // those before it
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  if (counts_.empty() && counts.empty()) return;
  counts_.insert(counts_.end(), counts.begin(), counts.end());
  counts_.resize(ids_.size(), 1);
}

void TokenMemory::read(std::int64_t begin, std::span<std::int32_t> out) const {
  SHEAF_CHECK(begin >= 0 && begin + std::ssize(out) <= size(), "tokens from {}, {} of them, of {}", begin, out.size(), size());
  std::copy_n(ids_.begin() + begin, out.size(), out.begin());
}

}    // namespace sheaf
