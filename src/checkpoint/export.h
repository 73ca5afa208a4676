#pragma once
// From a checkpoint to a HuggingFace folder, with nothing but the checkpoint at hand: its meta says which model it holds.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"

namespace sheaf {

// The entry "model" of a checkpoint's meta.
struct ModelRecord {
  Json config;                  // config.json
  DType dtype = DType::fp32;    // of the weights that the run began with, so of an export
  // Of the parameters in a HuggingFace folder, in its order: a checkpoint has their dims split, and lists first what rank 0 wrote.
  std::vector<std::pair<std::string, std::vector<std::int64_t>>> shapes;
};
Json to_json(const ModelRecord& model);
// UserError: the checkpoint has no such entry, or it is damaged.
ModelRecord model_of(const Checkpoint& checkpoint);

// Writes the parameters, config.json and the side files as the run itself would write model/: the same bytes. Tensors pass through memory
// in blocks, whatever their size. `dtype`: in place of the model's. progress(done bytes, all bytes): of the parameters as they are read.
void export_checkpoint(const Checkpoint& checkpoint, const std::string& folder, std::optional<DType> dtype = {},
                       const std::function<void(std::int64_t, std::int64_t)>& progress = {});

}    // namespace sheaf
