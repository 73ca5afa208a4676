#pragma once
// From a config.json to the forward graph of one micro-batch with its loss: no mesh, no gradient, no optimizer yet.
#include "models/dense.h"

namespace sheaf {

// Chooses the template by model_type. compute: fp32, bf16 or fp16. Throws UserError; `where` is named in it.
Graph build_model(const Json& config, const ModelShape& shape, DType compute, const std::string& where = "config.json");

}    // namespace sheaf
