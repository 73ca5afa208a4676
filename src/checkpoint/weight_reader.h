#pragma once
// Reads the weights of a model out of a HuggingFace folder, in whatever form its experts are (expert_names.h). Nothing is held but one
// expert, and that only where numbers have to be turned round or decoded.
#include <functional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/expert_names.h"
#include "checkpoint/safetensors.h"

namespace sheaf {

class WeightReader {
 public:
  // UserError as check_tensors, or that a tensor has a dtype that is not read.
  WeightReader(const SafetensorsFolder& folder, std::string_view model_type, std::span<const NamedShape> weights,
               const std::function<bool(std::string_view)>& ignored = {});

  Experts experts() const { return experts_; }
  // Elements [first, first + count) of a weight, by its number, row-major.
  void read(std::size_t weight, std::int64_t first, std::int64_t count, float* to);

 private:
  struct Source {
    std::vector<const StoredTensor*> tensors;
    Experts form = Experts::fused;
    std::int64_t rows = 0, columns = 0;    // of an expert in a file that has them the other way round
  };
  const float* expert(std::size_t weight, std::int64_t e);

  Experts experts_;
  std::vector<Source> sources_;    // of every weight
  // The expert that was decoded last.
  std::vector<float> decoded_;
  std::pair<std::size_t, std::int64_t> decoded_is_{0, -1};
};

}    // namespace sheaf
