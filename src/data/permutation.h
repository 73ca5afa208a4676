#pragma once
#include <array>
#include <cstdint>

namespace sheaf {

// A permutation of [0, n) that is computed, not stored: any position in O(1), so a run resumes anywhere and ranks agree without talking.
// It is a keyed pseudo-random one: a balanced Feistel network (Luby and Rackoff 1988) on the smallest 2k bits that hold n, and cycle
// walking (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002) back into [0, n). The domain is smaller than 4n, so fewer
// than 4 walks are expected. What it gives for (n, seed, epoch) is fixed for ever: resumed runs depend on it.
class Permutation {
 public:
  Permutation(std::int64_t n, std::uint64_t seed, std::uint64_t epoch);
  static Permutation identity(std::int64_t n);

  std::int64_t operator()(std::int64_t position) const;
  std::int64_t size() const { return n_; }

 private:
  explicit Permutation(std::int64_t n) : n_(n) {}

  std::int64_t n_;
  int half_bits_ = 0;                      // k; 0: the identity
  std::array<std::uint64_t, 8> keys_{};    // one a round; 4 would do for large k, small domains mix slower
};

}    // namespace sheaf
