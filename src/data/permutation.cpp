#include "data/permutation.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace sheaf {

// The output function of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
static std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

Permutation::Permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch) : n_(n) {
  SHEAF_CHECK(n > 0 && n <= std::int64_t{1} << 62, "permutation of {}", n);
  half_bits_ = std::max(1, (static_cast<int>(std::bit_width(static_cast<std::uint64_t>(n - 1))) + 1) / 2);
  constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15u;    // SplitMix64's: 2^64 / golden ratio, odd
  std::uint64_t state = mix(mix(seed + kStep) + epoch + kStep);
  for (std::uint64_t& key : keys_) key = mix(state += kStep);
}

Permutation Permutation::identity(std::int64_t n) { return Permutation(n); }

std::int64_t Permutation::operator()(std::int64_t position) const {
  SHEAF_CHECK(position >= 0 && position < n_, "position {} of {}", position, n_);
  if (half_bits_ == 0) return position;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  auto x = static_cast<std::uint64_t>(position);
  do {
    std::uint64_t left = x >> half_bits_, right = x & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t old = right;
      right = left ^ (mix(right + key) & mask);
      left = old;
    }
    x = left << half_bits_ | right;
  } while (x >= static_cast<std::uint64_t>(n_));
  return static_cast<std::int64_t>(x);
}

}    // namespace sheaf
