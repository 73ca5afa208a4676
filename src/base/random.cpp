#include "base/random.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <thread>
#include <vector>

namespace sheaf {
namespace {

using Words = std::array<std::uint32_t, 4>;

Words block(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const auto low = [](std::uint64_t x) { return static_cast<std::uint32_t>(x); };
  const auto high = [](std::uint64_t x) { return static_cast<std::uint32_t>(x >> 32); };
  return philox({low(index), high(index), low(stream), high(stream)}, {low(seed), high(seed)});
}

double unit(std::uint32_t word) { return (static_cast<double>(word) + 0.5) * 0x1p-32; }

// Elements 4 index .. 4 index + 3. Box, Muller 1958: two normals from two uniforms.
std::array<double, 4> normals(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const Words words = block(seed, stream, index);
  std::array<double, 4> out;
  for (std::size_t pair = 0; pair < 4; pair += 2) {
    const double radius = std::sqrt(-2 * std::log(unit(words[pair]))), angle = 2 * std::numbers::pi * unit(words[pair + 1]);
    out[pair] = radius * std::cos(angle), out[pair + 1] = radius * std::sin(angle);
  }
  return out;
}

}    // namespace

Words philox(Words counter, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t a = 0xD2511F53ull * counter[0], b = 0xCD9E8D57ull * counter[2];
    counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
               static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) { return unit(block(seed, stream, index / 4)[index % 4]); }
double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) { return normals(seed, stream, index / 4)[index % 4]; }

static void fill(std::span<float> out, std::uint64_t seed, std::uint64_t stream, std::uint64_t first, double mean, double std) {
  for (std::size_t i = 0; i < out.size();) {
    const std::uint64_t at = first + i;
    const auto four = normals(seed, stream, at / 4);
    for (std::uint64_t lane = at % 4; lane < 4 && i < out.size(); ++lane, ++i) out[i] = static_cast<float>(mean + std * four[lane]);
  }
}

void fill_normal(std::span<float> out, std::uint64_t seed, std::uint64_t stream, std::uint64_t first, double mean, double std) {
  constexpr std::size_t kWorthAThread = std::size_t{1} << 18;    // 8 ms
  const std::size_t threads = std::min<std::size_t>(std::max(1u, std::thread::hardware_concurrency()), out.size() / kWorthAThread + 1);
  const std::size_t each = (out.size() + threads - 1) / threads;
  std::vector<std::jthread> others;
  for (std::size_t begin = each; begin < out.size(); begin += each)
    others.emplace_back(
        [=, part = out.subspan(begin, std::min(each, out.size() - begin))] { fill(part, seed, stream, first + begin, mean, std); });
  fill(out.first(std::min(each, out.size())), seed, stream, first, mean, std);
}

}    // namespace sheaf
