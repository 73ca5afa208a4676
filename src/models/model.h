#pragma once
// From a config.json to the forward graph of one micro-batch: no mesh, no gradient, no optimizer yet.
#include "models/decoder.h"

namespace sheaf {

// train: the loss is a mean over the step, parameters are fp32 states with a copy in the compute dtype.
// score: the loss of every token is kept (models/loss.h: kScores), parameters are frozen states in the compute dtype.
enum class Mode { train, score };

// compute: fp32, bf16 or fp16. Throws UserError; `where` is named in it.
// frozen: patterns of names that are not trained ("model.embed_tokens.*": * stands for anything); one that matches nothing is an error.
Graph build_model(const Json& config, const ModelShape& shape, DType compute, Mode mode = Mode::train,
                  const std::string& where = "config.json", const std::vector<std::string>& frozen = {});

}    // namespace sheaf
