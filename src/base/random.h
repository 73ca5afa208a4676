#pragma once
// Counter-based random numbers: pure functions of (seed, stream, index), so that no number depends on how a tensor is cut over ranks or
// in which order it is filled. Stable for ever: initial weights depend on it. `stream`: hash_text of a tensor's name.
#include <array>
#include <cstdint>
#include <span>

namespace sheaf {

// Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): four words from a counter of four and a key of two.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

double uniform(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);    // in (0, 1), steps of 2^-32
double normal(std::uint64_t seed, std::uint64_t stream, std::uint64_t index);     // standard; at most 6.8 in size

// out[i] = mean + std * normal(seed, stream, first + i), rounded to float. Any split of a range gives the same numbers, so threads share a
// long one (30 ns an element: logarithm and sines in double, whose last digit libraries may round apart).
void fill_normal(std::span<float> out, std::uint64_t seed, std::uint64_t stream, std::uint64_t first, double mean, double std);

}    // namespace sheaf
