#include "checkpoint/checkpoint.h"

#define XXH_INLINE_ALL
#include <gtest/gtest.h>
#include <xxhash.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "base/error.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/checksum.h"
#include "checkpoint/safetensors.h"
#include "support/files.h"

using namespace sheaf;

namespace {

// A tensor [5, 4] in four uneven boxes, as four ranks would hold it, and a scalar.
struct Written {
  std::vector<std::vector<float>> data;
  std::vector<ChunkToWrite> chunks;
};
Written four_boxes() {
  Written w;
  for (const Box& box : {Box{{0, 2}, {0, 1}}, Box{{0, 2}, {1, 4}}, Box{{2, 5}, {0, 3}}, Box{{2, 5}, {3, 4}}}) {
    std::vector<float> piece;
    for (std::int64_t i = box[0].first; i < box[0].second; ++i)
      for (std::int64_t j = box[1].first; j < box[1].second; ++j) piece.push_back(static_cast<float>(10 * i + j));
    w.data.push_back(piece);
    w.chunks.push_back({"w", "parameter", DType::fp32, {5, 4}, box, nullptr});
  }
  w.data.push_back({7.0f});
  w.chunks.push_back({"t", "parameter", DType::fp32, {}, {}, nullptr});
  for (std::size_t i = 0; i < w.chunks.size(); ++i) w.chunks[i].data = w.data[i].data();
  return w;
}

void write_checkpoint(const std::string& folder, const Json& meta, std::span<const ChunkToWrite> chunks) {
  CheckpointWriter writer(folder);
  const std::string part = write_checkpoint_part(writer.temporary(), 0, chunks);
  writer.commit(meta, {&part, 1});
}

}    // namespace

TEST(Checkpoint, any_box_is_read_from_whatever_boxes_were_written) {
  const test::TemporaryFolder folder;
  write_checkpoint(folder.path() + "/c", {{"step", 3}}, four_boxes().chunks);
  const Checkpoint checkpoint(folder.path() + "/c");
  EXPECT_EQ(checkpoint.meta()["step"], 3);
  const auto* w = checkpoint.find("w", "parameter");
  ASSERT_NE(w, nullptr);
  for (std::int64_t a = 0; a < 5; ++a)
    for (std::int64_t b = a + 1; b <= 5; ++b)
      for (std::int64_t c = 0; c < 4; ++c)
        for (std::int64_t d = c + 1; d <= 4; ++d) {
          std::vector<float> got(static_cast<std::size_t>((b - a) * (d - c)), -1);
          checkpoint.read(*w, {{a, b}, {c, d}}, got.data());
          for (std::int64_t i = a; i < b; ++i)
            for (std::int64_t j = c; j < d; ++j)
              ASSERT_EQ(got[static_cast<std::size_t>((i - a) * (d - c) + j - c)], static_cast<float>(10 * i + j));
        }
  float scalar = 0;
  checkpoint.read(*checkpoint.find("t", "parameter"), {}, &scalar);
  EXPECT_EQ(scalar, 7.0f);
  checkpoint.verify();
}

TEST(Checkpoint, every_flipped_byte_of_the_data_is_found) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/c", file = path + "/rank_00000.safetensors";
  write_checkpoint(path, {{"step", 3}}, four_boxes().chunks);
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  for (std::int64_t at = size - 21 * 4; at < size; ++at) {
    const auto flip = [&] {
      std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
      f.seekg(at);
      const char c = static_cast<char>(f.get() ^ 0x10);
      f.seekp(at);
      f.put(c);
    };
    flip();
    EXPECT_THROW(Checkpoint(path).verify(), UserError) << "byte " << at;
    flip();
  }
  Checkpoint(path).verify();
}

TEST(Checkpoint, one_rank_writes_the_bytes_of_format_version_1) {
  const test::TemporaryFolder folder;
  write_checkpoint(folder / "c", {{"step", 3}}, four_boxes().chunks);
  Json expected = {{"format", "sheaf checkpoint"}, {"version", 1}, {"meta", {{"step", 3}}}, {"tensors", Json::array()}};
  Json w = {{"name", "w"}, {"kind", "parameter"}, {"dtype", "fp32"}, {"shape", {5, 4}}, {"chunks", Json::array()}};
  const char* boxes[] = {"[[0,2],[0,1]]", "[[0,2],[1,4]]", "[[2,5],[0,3]]", "[[2,5],[3,4]]"};
  for (int i = 0; i < 4; ++i)
    w["chunks"].push_back(
        {{"box", Json::parse(boxes[i])}, {"file", "rank_00000.safetensors"}, {"entry", fmt::format("parameter/w#{}", i)}});
  expected["tensors"].push_back(w);
  const Json chunk = {{"box", Json::array()}, {"file", "rank_00000.safetensors"}, {"entry", "parameter/t#0"}};
  expected["tensors"].push_back({{"name", "t"}, {"kind", "parameter"}, {"dtype", "fp32"}, {"shape", Json::array()}, {"chunks", {chunk}}});
  EXPECT_EQ(read_file(folder / "c/index.json"), expected.dump(1) + "\n");
  const SafetensorsFile file(folder / "c/rank_00000.safetensors");
  const float seven = 7;
  EXPECT_EQ(file.metadata().at("parameter/t#0"), fmt::format("{:016x}", XXH3_64bits(&seven, sizeof(seven))));
  EXPECT_EQ(file.tensors().front().name, "parameter/w#0");
  EXPECT_EQ(file.tensors().back().name, "parameter/t#0");
}

TEST(Checkpoint, checksums_are_those_of_the_whole_whatever_the_blocks) {
  std::vector<std::byte> bytes((std::size_t{1} << 24) * 2 + 5);
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * i >> 5);
  std::size_t read = 0;
  EXPECT_EQ(checksum(bytes, [&](std::size_t n) { read += n; }), fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size())));
  EXPECT_EQ(read, bytes.size());
}

TEST(Checkpoint, only_complete_ones_are_listed_and_leftovers_are_removed) {
  const test::TemporaryFolder folder;
  for (const std::int64_t step : {20, 3}) write_checkpoint(folder.path() + "/" + checkpoint_name(step), {}, four_boxes().chunks);
  std::filesystem::create_directory(folder.path() + "/step_00000030.tmp-17");
  const auto found = list_checkpoints(folder.path());
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found.back().step, 20);
  remove_unfinished_checkpoints(folder.path());
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "/step_00000030.tmp-17"));
}
