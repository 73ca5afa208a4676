#pragma once
// The models of `sheaf bench moe`.
#include <string>
#include <vector>

#include "base/json.h"
#include "models/model_config.h"

namespace sheaf {

struct ModelSize {
  std::string name;
  Json config;
  ModelConfig model;
};

std::vector<std::string> model_size_names();
// One of those, or the path of a config.json. UserError: neither, or a model without experts.
ModelSize model_size(const std::string& name);

}    // namespace sheaf
