// index.json of a checkpoint whose data file is sound: tensors "w" [5, 4] in four boxes and "t" [] (tests/checkpoint has the same).
#include <array>
#include <fstream>
#include <sstream>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/export.h"
#include "checkpoint/safetensors.h"
#include "fuzz/scratch_folder.h"

using namespace sheaf;

namespace {

// The checkpoint whose index is replaced; its own index is the seed of the corpus.
class Sample {
 public:
  Sample() {
    std::array<float, 20> data{};
    const float scalar = 7;
    std::vector<ChunkToWrite> chunks;
    for (const Box& box : {Box{{0, 2}, {0, 1}}, Box{{0, 2}, {1, 4}}, Box{{2, 5}, {0, 3}}, Box{{2, 5}, {3, 4}}})
      chunks.push_back({"w", "parameter", DType::fp32, {5, 4}, box, data.data()});
    chunks.push_back({"t", "parameter", DType::fp32, {}, {}, &scalar});
    const ModelRecord model{.config = {{"model_type", "llama"}}, .dtype = DType::bf16, .shapes = {{"w", {20}}, {"t", {}}}};
    CheckpointWriter writer(folder());
    const std::string part = write_checkpoint_part(writer.temporary(), 0, chunks);
    writer.commit({{"step", 3}, {"model", to_json(model)}}, {&part, 1});
  }
  std::string folder() const { return scratch_.path() + "/step_00000003"; }
  std::string output() const { return scratch_.path() + "/out"; }
  void replace_index(std::span<const std::uint8_t> bytes) const { scratch_.write("step_00000003/index.json", bytes); }

 private:
  fuzz::ScratchFolder scratch_;
};

}    // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Sample sample;
  sample.replace_index({data, size});
  fuzz::parse([&] {
    const Checkpoint checkpoint(sample.folder());
    fuzz::parse([&] { checkpoint.verify(); });
    for (const Checkpoint::Tensor& tensor : checkpoint.tensors()) {
      // What a run would read: at most what its own model has. An index may claim a tensor without chunks of any size.
      const std::int64_t bytes = checked_bytes(tensor.dtype, tensor.shape, tensor.name);
      if (bytes > 1 << 20) continue;
      std::vector<std::byte> whole(static_cast<std::size_t>(bytes));
      fuzz::parse([&] { checkpoint.read(tensor, whole_box(tensor.shape), whole.data()); });
    }
    fuzz::parse([&] { export_checkpoint(checkpoint, sample.output()); });
  });
  return 0;
}
