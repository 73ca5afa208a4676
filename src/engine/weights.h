#pragma once
// Between the states of a graph and a HuggingFace folder: weights in, weights out, or initial weights from a seed.
#include <span>
#include <string>

#include "base/json.h"
#include "checkpoint/hf_folder.h"
#include "runtime/executor.h"

namespace sheaf {

// Every weight from the tensor of its name; derived states follow. UserError naming missing, extra and misshapen tensors.
void load_weights(Executor& executor, const HfFolder& folder, bool tied_head);

// As the states' `init` says: a pure function of (seed, name, global index), the same on any mesh.
void init_weights(Executor& executor, std::uint64_t seed);

// Sets a weight from fp32, row-major, and what is derived from it.
void write_master(Executor& executor, Value state, std::span<const float> data);

struct SaveOptions {
  DType dtype = DType::fp32;      // in the file
  std::string side_files_from;    // a HF folder whose tokenizer files are copied; "": none
};
// A HF folder that transformers loads. `config` is the model's config.json; its dtype is set.
void save_weights(const Executor& executor, const std::string& folder, Json config, const SaveOptions& options);

}    // namespace sheaf
