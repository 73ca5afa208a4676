#pragma once
#include <string_view>

#include "mesh/placement.h"

namespace sheaf {

// States mirror the HF tensors one to one with dims split; this is the shape of the HF tensor: [hk, r, d, H] -> [hk r d, H].
Shape hf_shape(std::string_view name, const Shape& shape);

// Tensors of a HF folder that carry nothing: buffers that old versions saved, the head of a tied model.
bool is_ignored_tensor(std::string_view name, bool tied_head);

}    // namespace sheaf
