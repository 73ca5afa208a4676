#pragma once
#include <cstdint>

namespace sheaf {

// How documents become rows of one length: one after the other with boundaries inside rows, or packed whole with attention inside each.
enum class Packing : std::uint8_t { concat, documents };

}    // namespace sheaf
