#pragma once
// From a checkpoint to a HuggingFace folder, with nothing but the checkpoint at hand: its meta says which model it holds.
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/expert_names.h"

namespace sheaf {

// The entry "model" of a checkpoint's meta.
struct ModelRecord {
  Json config;                         // config.json
  DType dtype = DType::fp32;           // of the weights that the run began with, so of an export
  Experts experts = Experts::fused;    // of an export
  // Of the parameters in transformers' memory, in its order: a checkpoint has their dims split, and lists first what rank 0 wrote.
  std::vector<NamedShape> shapes;
};
Json to_json(const ModelRecord& model);
// UserError: the checkpoint has no such entry, or it is damaged.
ModelRecord model_of(const Checkpoint& checkpoint);

struct ExportOptions {
  std::optional<DType> dtype = {};                                                       // in place of the model's
  std::optional<Experts> experts = {};                                                   // the same
  std::function<void(std::int64_t done_bytes, std::int64_t all_bytes)> progress = {};    // of the parameters as they are read
};
// Writes the parameters, config.json and the side files as the run itself would write model/: the same bytes. Tensors pass through memory
// in blocks, whatever their size.
void export_checkpoint(const Checkpoint& checkpoint, const std::string& folder, const ExportOptions& options = {});

}    // namespace sheaf
