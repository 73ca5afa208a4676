#pragma once
#include <cstdint>
#include <utility>
#include <vector>

namespace sheaf {

// Which source each row of a weighted mixture comes from. After any number t of rows, source i has given w_i t of them, up or down by less
// than one row, for shares w_i that sum to 1. Any position in O(1): the order repeats with a period, which is worked out once.
// Within the period it is the solution of the chairman assignment problem (Tijdeman, Discrete Mathematics 32, 1980, pp. 323-330): of the
// sources that are behind enough, the one that has to come soonest.
class Mixture {
 public:
  // Weights are positive and need not sum to 1. Shares whose common denominator is above kLongestPeriod are rounded to multiples of
  // 1 / kLongestPeriod, none to 0.
  explicit Mixture(const std::vector<double>& weights);

  struct Place {
    std::size_t source;
    std::int64_t ordinal;    // how many rows of this source came before
  };
  Place at(std::int64_t position) const;
  double share(std::size_t source) const;    // w_i

  static constexpr std::int64_t kLongestPeriod = std::int64_t{1} << 20;

 private:
  std::vector<std::int64_t> counts_;      // of a source in a period
  std::vector<std::uint32_t> sources_;    // of a position in the period
  std::vector<std::uint32_t> ordinals_;
};

}    // namespace sheaf
