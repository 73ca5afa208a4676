#include "models/hf_names.h"

#include <numeric>

namespace sheaf {

Shape hf_shape(std::string_view name, const Shape& shape) {
  const auto product = [&](std::size_t begin, std::size_t end) {
    return std::accumulate(shape.begin() + static_cast<std::ptrdiff_t>(begin), shape.begin() + static_cast<std::ptrdiff_t>(end), std::int64_t{1}, std::multiplies<>());
  };
  if (shape.size() < 2 || (shape.size() == 2 && name.ends_with(".weight"))) return shape;
  if (name.ends_with(".bias")) return {product(0, shape.size())};
  if (name.ends_with("o_proj.weight")) return {shape[0], product(1, shape.size())};
  return {product(0, shape.size() - 1), shape.back()};
}

bool is_ignored_tensor(std::string_view name, bool tied_head) {
  return name.ends_with("rotary_emb.inv_freq") || (tied_head && name == "lm_head.weight");
}

}    // namespace sheaf
