#include "data/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"

namespace sheaf {
namespace {

// Integers in the proportion of the weights, exactly if they are decimal fractions with few digits; empty: their sum is too large.
std::vector<std::int64_t> exact_counts(const std::vector<double>& weights) {
  for (double scale = 1; scale <= 1e6; scale *= 10) {
    std::vector<std::int64_t> counts;
    std::int64_t divisor = 0, sum = 0;
    bool exact = true;
    for (const double weight : weights) {
      const double scaled = weight * scale, rounded = std::round(scaled);
      // 1e-12: a decimal fraction times a power of ten is off by a few units of 2^-53.
      exact = exact && rounded >= 1 && rounded < 1e15 && std::abs(scaled - rounded) <= 1e-12 * rounded;
      if (!exact) break;
      counts.push_back(static_cast<std::int64_t>(rounded));
      divisor = std::gcd(divisor, counts.back());
    }
    if (!exact) continue;
    for (std::int64_t& count : counts) sum += count /= divisor;
    if (sum <= Mixture::kLongestPeriod) return counts;
  }
  return {};
}

// Largest remainders, and at least one each.
std::vector<std::int64_t> rounded_counts(const std::vector<double>& weights) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  const std::int64_t period = Mixture::kLongestPeriod;
  std::vector<std::int64_t> counts;
  std::vector<std::pair<double, std::size_t>> remainders;
  std::int64_t left = period;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double wanted = weights[i] / total * static_cast<double>(period);
    counts.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(std::floor(wanted))));
    remainders.emplace_back(static_cast<double>(counts.back()) - wanted, i);
    left -= counts.back();
  }
  std::sort(remainders.begin(), remainders.end());    // the furthest below what it wants first
  for (std::size_t i = 0; left > 0; i = (i + 1) % remainders.size()) ++counts[remainders[i].second], --left;
  return counts;    // the sum may be above the period by as many as were raised to 1: the shares are those of the sum
}

}    // namespace

Mixture::Mixture(const std::vector<double>& weights) {
  SHEAF_CHECK(!weights.empty(), "a mixture of nothing");
  for (const double weight : weights) SHEAF_CHECK(std::isfinite(weight) && weight > 0, "weight {}", weight);
  counts_ = exact_counts(weights);
  if (counts_.empty()) counts_ = rounded_counts(weights);
  const std::int64_t period = std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0});
  const auto k = std::max<std::int64_t>(2, std::ssize(counts_));

  // behind_i = w_i t - (rows of i so far), times the period. Eligible: behind after the next row by 1 / (2k - 2) or more. Of these the
  // smallest (1 - 1 / (2k - 2) - behind) / w_i, the time until it would be too far behind.
  const std::int64_t whole = 2 * k - 2;
  std::vector<std::int64_t> behind(counts_.size(), 0), given(counts_.size(), 0);
  for (std::int64_t t = 0; t < period; ++t) {
    std::size_t best = counts_.size();
    std::int64_t best_slack = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      behind[i] += counts_[i];
      if (behind[i] * whole < period) continue;
      const std::int64_t slack = (whole - 1) * period - whole * behind[i];    // / counts_[i], compared crosswise
      if (best == counts_.size() || static_cast<__int128>(slack) * counts_[best] < static_cast<__int128>(best_slack) * counts_[i])
        best = i, best_slack = slack;
    }
    SHEAF_CHECK(best < counts_.size(), "no source is behind at row {} of {}", t, period);
    behind[best] -= period;
    sources_.push_back(static_cast<std::uint32_t>(best));
    ordinals_.push_back(static_cast<std::uint32_t>(given[best]++));
  }
  SHEAF_CHECK(given == counts_, "the period of the mixture does not close");
}

Mixture::Place Mixture::at(std::int64_t position) const {
  SHEAF_CHECK(position >= 0, "row {} of a mixture", position);
  const std::int64_t period = std::ssize(sources_);
  const auto r = static_cast<std::size_t>(position % period);
  return {sources_[r], position / period * counts_[sources_[r]] + ordinals_[r]};
}

double Mixture::share(std::size_t source) const { return static_cast<double>(counts_[source]) / static_cast<double>(sources_.size()); }

}    // namespace sheaf
