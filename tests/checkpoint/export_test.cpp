// Export of tensors larger than a block, out of files of several ranks.
#include "checkpoint/export.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <fstream>

#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/convert.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/weight_reader.h"
#include "support/files.h"

using namespace sheaf;

namespace {

const Shape kShape = {60, 1000, 1047};    // 240 MiB; no row of the first dims is a divisor of a block
constexpr std::int64_t kMiB = 1 << 20;

float value(std::int64_t i) { return static_cast<float>(i % 100003) * 0.37f; }

// Two dims cut, and two ranks for each piece: 8 ranks.
void write(const std::string& folder) {
  CheckpointWriter writer(folder);
  std::vector<std::string> parts;
  for (std::int64_t rank = 0; rank < 8; ++rank) {
    const Box part = {piece(60, 2, rank / 4), {0, 1000}, piece(1047, 2, rank / 2 % 2)};
    const auto [begin, end] = piece(num_elements(part), 2, rank % 2);
    std::vector<std::vector<float>> data;
    std::vector<ChunkToWrite> chunks;
    for (const Box& box : boxes_of_flat(part, begin, end)) {
      auto& to = data.emplace_back();
      for (std::int64_t i = box[0].first; i < box[0].second; ++i)
        for (std::int64_t j = box[1].first; j < box[1].second; ++j)
          for (std::int64_t k = box[2].first; k < box[2].second; ++k) to.push_back(value((i * 1000 + j) * 1047 + k));
      chunks.push_back({"w", "parameter", DType::fp32, kShape, box, to.data()});
    }
    parts.push_back(write_checkpoint_part(writer.temporary(), rank, chunks));
  }
  const ModelRecord model{.config = {{"model_type", "test"}}, .dtype = DType::fp32, .shapes = {{"w", {60000, 1047}}}};
  writer.commit({{"model", to_json(model)}}, parts);
}

// The most memory that this process had since reset_peak(), in bytes.
std::int64_t peak() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return 1024 * std::stoll(line.substr(6));
  return -1;
}
bool reset_peak() {
  std::ofstream file("/proc/self/clear_refs");
  return static_cast<bool>(file << "5" << std::flush);
}

}    // namespace

TEST(ExportOfRanks, a_tensor_of_many_blocks_is_whole_and_takes_the_memory_of_few) {
  const test::TemporaryFolder folder;
  write(folder / "c");
  const Checkpoint checkpoint(folder / "c");
  [[maybe_unused]] const bool measured = reset_peak();
  [[maybe_unused]] const std::int64_t before = peak();
  std::int64_t told = 0, times = 0;
  const auto progress = [&](std::int64_t done, std::int64_t all) {
    EXPECT_GT(done, told);
    told = done, ++times;
    EXPECT_EQ(all, num_elements(kShape) * 4);
  };
  export_checkpoint(checkpoint, folder / "bf16", {.dtype = DType::bf16, .progress = progress});
  EXPECT_EQ(told, num_elements(kShape) * 4);
  EXPECT_EQ(times, 4);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)    // their shadow is memory too
  // A block of 64 MiB, as much of the files, what is read at once, and a little: the tensor would be 240.
  EXPECT_TRUE(!measured || peak() - before < 176 * kMiB) << peak() - before;
#endif
  const HfFolder model(folder / "bf16");
  const StoredTensor& w = model.weights().at("w");
  EXPECT_EQ(w.shape, (Shape{60000, 1047}));
  std::vector<float> row(1047), rounded(1047);
  for (std::int64_t i = 0; i < 60000; ++i) {
    for (std::int64_t k = 0; k < 1047; ++k) row[static_cast<std::size_t>(k)] = value(i * 1047 + k);
    fp32_to_bf16(row.data(), rounded.data(), 1047);
    ASSERT_EQ(std::memcmp(w.bytes.data() + i * 1047 * 2, rounded.data(), 1047 * 2), 0) << "row " << i;
  }
}

TEST(ExportOfRanks, a_damaged_file_leaves_no_model) {
  const test::TemporaryFolder folder;
  const std::vector<float> data(24, 0.5f);
  const ModelRecord model{.config = {{"model_type", "test"}}, .dtype = DType::fp32, .shapes = {{"w", {24}}}};
  CheckpointWriter writer(folder / "c");
  std::vector<std::string> parts;
  for (std::int64_t rank = 0; rank < 2; ++rank) {
    const ChunkToWrite chunk{"w", "parameter", DType::fp32, {4, 6}, {{2 * rank, 2 * rank + 2}, {0, 6}}, data.data()};
    parts.push_back(write_checkpoint_part(writer.temporary(), rank, {&chunk, 1}));
  }
  writer.commit({{"model", to_json(model)}}, parts);
  export_checkpoint(Checkpoint(folder / "c"), folder / "good");
  EXPECT_EQ(HfFolder(folder / "good").weights().at("w").count(), 24);
  {
    std::fstream file(folder / "c/rank_00001.safetensors", std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(-1, std::ios::end);
    file.put('x');
  }
  EXPECT_USER_ERROR(export_checkpoint(Checkpoint(folder / "c"), folder / "m"), "rank_00001.safetensors: 'parameter/w#0' is damaged");
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) EXPECT_NE(entry.path().filename().string()[0], 'm');
}

namespace {

// Experts of [3, 2, 5, 7], cut in two dims and then flat: 8 ranks, no piece is an expert.
void write_experts(const std::string& folder, const ModelRecord& model) {
  const Shape shape = {3, 2, 5, 7};
  std::vector<float> data(210);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = value(static_cast<std::int64_t>(i));
  CheckpointWriter writer(folder);
  std::vector<std::string> parts;
  for (std::int64_t rank = 0; rank < 8; ++rank) {
    const Box part = {piece(3, 2, rank / 4), {0, 2}, piece(5, 2, rank / 2 % 2), {0, 7}};
    const auto [begin, end] = piece(num_elements(part), 2, rank % 2);
    std::vector<std::vector<float>> pieces;
    std::vector<ChunkToWrite> chunks;
    for (const Box& box : boxes_of_flat(part, begin, end)) {
      auto& to = pieces.emplace_back();
      for (std::int64_t e = box[0].first; e < box[0].second; ++e)
        for (std::int64_t g = box[1].first; g < box[1].second; ++g)
          for (std::int64_t m = box[2].first; m < box[2].second; ++m)
            for (std::int64_t h = box[3].first; h < box[3].second; ++h)
              to.push_back(data[static_cast<std::size_t>(((e * 2 + g) * 5 + m) * 7 + h)]);
      chunks.push_back({model.shapes[0].name, "parameter", DType::fp32, shape, box, to.data()});
    }
    parts.push_back(write_checkpoint_part(writer.temporary(), rank, chunks));
  }
  writer.commit({{"model", to_json(model)}}, parts);
}

}    // namespace

TEST(ExportOfExperts, is_separate_or_fused_whatever_ranks_wrote_it) {
  const test::TemporaryFolder folder;
  const NamedShape weight = {"model.layers.0.mlp.experts.gate_up_proj", {3, 10, 7}};
  write_experts(folder / "c",
                {.config = {{"model_type", "mixtral"}}, .dtype = DType::fp32, .experts = Experts::separate, .shapes = {weight}});
  const Checkpoint checkpoint(folder / "c");
  export_checkpoint(checkpoint, folder / "as_read");
  export_checkpoint(checkpoint, folder / "fused", {.experts = Experts::fused});
  for (const auto& [name, experts] : {std::pair("as_read", Experts::separate), {"fused", Experts::fused}}) {
    const HfFolder model(folder / name);
    WeightReader reader(model.weights(), "mixtral", {&weight, 1});
    EXPECT_EQ(reader.experts(), experts);
    std::vector<float> data(210);
    reader.read(0, 0, 210, data.data());
    for (std::size_t i = 0; i < data.size(); ++i) ASSERT_EQ(data[i], value(static_cast<std::int64_t>(i))) << i;
  }
  EXPECT_EQ(HfFolder(folder / "as_read").weights().at("model.layers.0.block_sparse_moe.experts.2.w3.weight").shape, (Shape{5, 7}));
}
TEST(ExportOfExperts, a_form_that_the_family_has_not_is_refused) {
  const test::TemporaryFolder folder;
  const ModelRecord model{.config = {{"model_type", "llama4_text"}},
                          .shapes = {{"model.layers.0.feed_forward.experts.gate_up_proj", {3, 10, 7}}}};
  write_experts(folder / "c", model);
  EXPECT_USER_ERROR(export_checkpoint(Checkpoint(folder / "c"), folder / "m", {.experts = Experts::separate}),
                    folder / "c: a llama4_text model is not written with separate experts; they are always fused");
  write_experts(folder / "d", {.config = {{"model_type", "mixtral"}}, .shapes = {{"w", {3, 10, 7}}}});
  EXPECT_USER_ERROR(export_checkpoint(Checkpoint(folder / "d"), folder / "m", {.experts = Experts::fused}),
                    folder / "d: a mixtral model has no experts");
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
}
