#pragma once
// Between the states of a graph and a HuggingFace folder: weights in, weights out, or initial weights from a seed.
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/expert_names.h"
#include "checkpoint/hf_folder.h"
#include "mesh/boxes.h"
#include "runtime/executor.h"

namespace sheaf {

// The weights of a graph, with their shapes in transformers' memory, in the order of the states.
std::vector<NamedShape> weight_shapes(const Graph& graph);

// What the rank holds of every weight, from the folder's tensors (expert_names.h); derived states follow. In which form the folder has
// its experts. UserError naming missing, extra and misshapen tensors.
Experts load_weights(Executor& executor, const HfFolder& folder, bool tied_head);

// What of a folder is no part of the model though it has weights, for the banner; "": nothing.
std::string left_out(const HfFolder& folder);

// As the states' `init` says: a pure function of (seed, name, global index), the same on any mesh.
void init_weights(Executor& executor, std::uint64_t seed);

// Sets what this rank holds of a weight and of what is derived from it. fill(box, to): the elements of a box of the weight, row-major.
using FillBox = std::function<void(const Box& box, float* to)>;
void write_master(Executor& executor, Value state, const FillBox& fill);

struct SaveOptions {
  DType dtype = DType::fp32;    // in the file
  Experts experts = Experts::fused;
  std::string side_files_from;    // a HF folder whose tokenizer files are copied; "": none
};
// A HF folder that transformers loads. `config` is the model's config.json; its dtype is set. All ranks call it, rank 0 writes, one tensor
// at a time; transport: nullptr for one rank.
void save_weights(const Executor& executor, Transport* transport, const std::string& folder, Json config, const SaveOptions& options);

}    // namespace sheaf
