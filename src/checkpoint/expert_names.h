#pragma once
// The tensors of a HuggingFace folder that are the weights of a model. Most weights are one tensor of their own name. The experts of a
// layer are one weight, here and in transformers' memory, and on the Hub mostly a matrix each:
//
//   model.layers.0.mlp.experts.gate_up_proj [E, 2 M, H] of a mixtral
//     separate     model.layers.0.block_sparse_moe.experts.0.w1.weight [M, H], ...0.w3.weight [M, H], ...1.w1.weight, and so on
//     fused        model.layers.0.mlp.experts.gate_up_proj [E, 2 M, H]
//     transposed   model.layers.0.mlp.experts.gate_up_proj [E, H, 2 M]
//   model.layers.0.mlp.experts.gate_up_proj [E, H, 2 M] of a gpt_oss
//     fused        model.layers.0.mlp.experts.gate_up_proj [E, H, 2 M]
//     mxfp4        model.layers.0.mlp.experts.gate_up_proj_blocks [E, 2 M, H / 32, 16], ...gate_up_proj_scales [E, 2 M, H / 32]
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "checkpoint/safetensors.h"

namespace sheaf {

// How a folder has its experts. The last two are only read.
enum class Experts {
  separate,      // a tensor for every matrix of every expert; the names of the Hub, those of routers too
  fused,         // a tensor for all experts of a layer; the names that transformers has in memory
  transposed,    // as fused, but that the matrices lie the other way round
  mxfp4          // gpt_oss as it was published: numbers of 4 bits, 32 of which share a scale
};
std::string_view name(Experts experts);
std::optional<Experts> experts_from_name(std::string_view name);

// Those that a folder of this family may have; first the one that transformers writes. A model without experts: fused, which is every
// weight under its own name.
std::vector<Experts> experts_of(std::string_view model_type);
// In which form to write what was read in another: as it came, else as transformers writes it.
Experts written_experts(Experts read, std::string_view model_type);

// Weights have the names and shapes of transformers' memory.
bool has_experts(std::span<const NamedShape> weights);
// The form that fits most of what the folder holds.
Experts find_experts(const SafetensorsFolder& folder, std::string_view model_type, std::span<const NamedShape> weights);

struct FileTensors {
  Experts form = Experts::fused;    // fused and separate: the tensors one after the other, each row-major, are the weight
  std::vector<NamedShape> tensors;
};
FileTensors file_tensors(std::string_view model_type, Experts experts, const NamedShape& weight);

struct WeightPart {
  TensorToWrite tensor;
  std::size_t weight = 0;    // its number
  std::int64_t first = 0;    // element of the weight, row-major
};
// What a folder will hold, in the order of the weights. `dtype` but where transformers keeps fp32: what experts are chosen by.
std::vector<WeightPart> parts_to_write(std::string_view model_type, Experts experts, std::span<const NamedShape> weights, DType dtype);
std::vector<TensorToWrite> tensors_of(std::span<const WeightPart> parts);

}    // namespace sheaf
