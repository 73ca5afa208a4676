#pragma once
// The checksum of a chunk or side file: XXH3, 64 bit, as 16 hex digits.
#include <cstddef>
#include <functional>
#include <span>
#include <string>

namespace sheaf {

// read(bytes): after every 16 MiB at most, how many bytes were read since the last call.
std::string checksum(std::span<const std::byte> bytes, const std::function<void(std::size_t)>& read = {});

}    // namespace sheaf
