#pragma once
// A HuggingFace model folder, read and written: config.json, safetensors with HF names, tokenizer files.
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"
#include "checkpoint/safetensors.h"

namespace sheaf {

// config.json, without a quantization_config that reading the weights undoes. UserError: no such folder or file; other quantised weights.
Json read_model_config(const std::string& folder);

class HfFolder {
 public:
  explicit HfFolder(const std::string& folder);    // UserError: no such folder, no config.json, no, bad or quantised weights

  const std::string& path() const { return weights_.folder(); }
  const Json& config() const { return config_; }
  const SafetensorsFolder& weights() const { return weights_; }
  DType main_dtype() const { return main_dtype_; }    // the float dtype of most elements; fp32 where there is no float

 private:
  Json config_;
  SafetensorsFolder weights_;
  DType main_dtype_;
};

// One UserError of at most 8 lines that names missing, misshapen and extra tensors. Extra ones for which `ignored` is true are fine.
void check_tensors(const SafetensorsFolder& folder, std::span<const NamedShape> expected,
                   const std::function<bool(std::string_view)>& ignored = {});

// Tensors of layers that predict tokens beyond the next: numbered behind the others, or called mtp. transformers leaves them out as well.
bool predicts_further(std::string_view name, const Json& config);
// Tensors that the model of a folder does not have: those, buffers that old versions saved, the head of a tied model.
bool is_left_out(std::string_view name, const Json& config, bool tied_head);

// The files of a HF folder that go with the weights: tokenizer, chat template, generation_config. Paths, sorted. UserError: no such folder.
std::vector<std::string> side_files(const std::string& folder);
// Says in a config.json which dtype the weights have, in the key that it uses for it.
void set_dtype(Json& config, DType dtype);

struct HfWriterOptions {
  std::int64_t max_shard_bytes = 5'000'000'000;
  std::string side_files_from;    // a HF folder whose tokenizer, chat template and generation_config are copied; "": none
};

// Writes a HF folder that transformers loads. Nothing is seen under the name before finish(); without finish(), nothing stays behind.
// Tensors come one at a time, in any order; one conversion buffer is all the memory that is used.
class HfWriter {
 public:
  HfWriter(const std::string& folder, const Json& config, std::vector<TensorToWrite> tensors, const HfWriterOptions& options = {});
  ~HfWriter();

  // All elements of a tensor, of dtype `from` in memory, converted to the dtype of the file.
  void write(std::string_view name, DType from, const void* data);
  // The same of `count` elements of the tensor, row-major from `first` on. The parts of a tensor come one after the other.
  void write_part(std::string_view name, std::int64_t first, std::int64_t count, DType from, const void* data);
  void finish();    // every tensor was written; flushes, renames

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}    // namespace sheaf
