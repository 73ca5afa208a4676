// Checkpoints that several ranks write and several ranks read. A rank is a thread here.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/safetensors.h"
#include "support/files.h"

using namespace sheaf;
namespace fs = std::filesystem;

namespace {

struct Whole {
  std::string name, kind;
  DType dtype;
  Shape shape;
  std::vector<std::byte> bytes;
};

std::vector<Whole> some_tensors(std::mt19937& random) {
  std::vector<Whole> out = {{"embed", "parameter", DType::fp32, {50, 7}, {}},  {"embed", "adam_m", DType::fp32, {50, 7}, {}},
                            {"q", "parameter", DType::bf16, {3, 2, 5, 7}, {}}, {"norm", "parameter", DType::fp32, {37}, {}},
                            {"scale", "parameter", DType::fp64, {}, {}},       {"counts", "state", DType::i64, {2, 3, 4, 2, 3}, {}}};
  for (Whole& tensor : out) {
    tensor.bytes.resize(static_cast<std::size_t>(num_elements(tensor.shape) * size_bytes(tensor.dtype)));
    for (std::byte& byte : tensor.bytes) byte = static_cast<std::byte>(random());
  }
  return out;
}

// The elements of a box of a tensor that is in memory, one by one.
std::vector<std::byte> bytes_of(const Whole& tensor, const Box& box) {
  const auto element = static_cast<std::size_t>(size_bytes(tensor.dtype));
  std::vector<std::byte> out;
  for (std::int64_t n = 0; n < num_elements(box); ++n) {
    std::int64_t rest = n, at = 0, stride = 1;
    for (std::size_t dim = box.size(); dim-- > 0;) {
      const std::int64_t extent = box[dim].second - box[dim].first;
      at += (box[dim].first + rest % extent) * stride;
      rest /= extent;
      stride *= tensor.shape[dim];
    }
    const std::byte* from = tensor.bytes.data() + static_cast<std::size_t>(at) * element;
    out.insert(out.end(), from, from + element);
  }
  return out;
}

// The boxes of each rank: some dims cut by floor over a factor of the ranks, the rest of the ranks share each piece as flat ranges of
// a granule of 16 elements (or each cut is left out: then one rank has the whole).
std::vector<std::vector<Box>> random_tiling(const Shape& shape, std::int64_t num_ranks, std::mt19937& random) {
  Shape cuts(shape.size(), 1);
  std::int64_t left = num_ranks;
  for (std::size_t dim = 0; dim < shape.size(); ++dim)
    for (const std::int64_t factor : {2, 3})
      if (left % factor == 0 && random() % 2) cuts[dim] *= factor, left /= factor;
  std::vector<std::vector<Box>> out(static_cast<std::size_t>(num_ranks));
  const bool flat = random() % 4 != 0;
  for (std::int64_t rank = 0; rank < num_ranks; ++rank) {
    Box box;
    std::int64_t rest = rank / left;
    for (std::size_t dim = 0; dim < shape.size(); ++dim) {
      box.push_back(piece(shape[dim], cuts[dim], rest % cuts[dim]));
      rest /= cuts[dim];
    }
    auto& boxes = out[static_cast<std::size_t>(rank)];
    if (!flat) {
      if (rank % left == 0) boxes.push_back(box);
      continue;
    }
    const std::int64_t count = num_elements(box);
    const auto [begin, end] = piece((count + 15) / 16, left, rank % left);
    boxes = boxes_of_flat(box, std::min(count, begin * 16), std::min(count, end * 16));
  }
  return out;
}

struct Parts {
  std::vector<std::vector<ChunkToWrite>> chunks;    // of each rank
  std::vector<std::vector<std::byte>> data;
};
Parts cut(const std::vector<Whole>& tensors, std::int64_t num_ranks, std::mt19937& random) {
  Parts out;
  out.chunks.resize(static_cast<std::size_t>(num_ranks));
  for (const Whole& tensor : tensors) {
    const auto tiling = random_tiling(tensor.shape, num_ranks, random);
    for (std::size_t rank = 0; rank < tiling.size(); ++rank)
      for (const Box& box : tiling[rank]) {
        out.data.push_back(bytes_of(tensor, box));
        out.chunks[rank].push_back({tensor.name, tensor.kind, tensor.dtype, tensor.shape, box, out.data.back().data()});
      }
  }
  return out;
}

template <class F>
void on_ranks(std::size_t num_ranks, F&& f) {
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < num_ranks; ++rank) threads.emplace_back([&f, rank] { f(rank); });
  for (std::thread& thread : threads) thread.join();
}

// All three steps. `instead`: changes the parts before they are put together.
void write(const std::string& folder, const Parts& parts, const std::function<void(std::vector<std::string>&)>& instead = {}) {
  CheckpointWriter writer(folder);
  std::vector<std::string> texts(parts.chunks.size());
  on_ranks(texts.size(), [&](std::size_t rank) {
    texts[rank] = write_checkpoint_part(writer.temporary(), static_cast<std::int64_t>(rank), parts.chunks[rank]);
  });
  if (instead) instead(texts);
  writer.commit({{"step", 5}}, texts);
}

std::string internal_error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const InternalError& error) {
    return error.what();
  }
  return "no error";
}

// Two ranks that share a tensor [4, 6] by rows, a third that has another tensor.
Parts three_ranks() {
  static const std::vector<float> data(24, 1.5f);
  const auto rows = [&](std::int64_t begin, std::int64_t end) {
    return ChunkToWrite{"w", "parameter", DType::fp32, {4, 6}, {{begin, end}, {0, 6}}, data.data()};
  };
  return {.chunks = {{rows(0, 3)}, {rows(3, 4)}, {{"v", "adam_v", DType::fp32, {5}, {{0, 5}}, data.data()}}}, .data = {}};
}

void flip_last_byte(const std::string& path) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(-1, std::ios::end);
  const char byte = static_cast<char>(file.get() ^ 1);
  file.seekp(-1, std::ios::end);
  file.put(byte);
}

}    // namespace

TEST(CheckpointOfRanks, whatever_ranks_write_any_other_ranks_read) {
  std::mt19937 random(7);
  const test::TemporaryFolder folder;
  const std::vector<Whole> tensors = some_tensors(random);
  for (int round = 0; round < 8; ++round)
    for (const std::int64_t writers : {1, 2, 3, 4, 6}) {
      const std::string path = folder / fmt::format("step_{:08}", 10 * round + writers);
      write(path, cut(tensors, writers, random));
      const Checkpoint checkpoint(path);
      EXPECT_EQ(checkpoint.meta()["step"], 5);
      EXPECT_EQ(checkpoint.tensors().size(), tensors.size());
      checkpoint.verify();
      for (const std::int64_t readers : {1, 2, 3, 4, 6}) {
        std::vector<std::vector<std::vector<Box>>> tilings;    // of each tensor
        for (const Whole& tensor : tensors) tilings.push_back(random_tiling(tensor.shape, readers, random));
        std::vector<std::string> wrong(static_cast<std::size_t>(readers));
        on_ranks(wrong.size(), [&](std::size_t rank) {
          for (std::size_t t = 0; t < tensors.size(); ++t)
            for (const Box& box : tilings[t][rank]) {
              const auto expected = bytes_of(tensors[t], box);
              std::vector<std::byte> found(expected.size());
              checkpoint.read(*checkpoint.find(tensors[t].name, tensors[t].kind), box, found.data());
              if (found != expected) wrong[rank] = tensors[t].name;
            }
        });
        for (const std::string& name : wrong) EXPECT_EQ(name, "") << writers << " writers, " << readers << " readers";
      }
    }
}

TEST(CheckpointOfRanks, flat_ranges_of_one_tensor_by_hundreds_of_ranks) {
  // 300 ranks, 3 of which hold each piece of a grid: boxes in the hundreds of files and all over the tensor.
  std::mt19937 random(3);
  std::vector<Whole> tensors = {{"w", "parameter", DType::bf16, {64, 5, 41}, {}}};
  tensors[0].bytes.resize(64 * 5 * 41 * 2);
  for (std::byte& byte : tensors[0].bytes) byte = static_cast<std::byte>(random());
  Parts parts;
  parts.chunks.resize(300);
  for (std::int64_t rank = 0; rank < 300; ++rank) {
    const Box part = {piece(64, 50, rank / 6), {0, 5}, piece(41, 2, rank / 3 % 2)};
    const auto [begin, end] = piece(num_elements(part), 3, rank % 3);
    for (const Box& box : boxes_of_flat(part, begin, end)) {
      parts.data.push_back(bytes_of(tensors[0], box));
      parts.chunks[static_cast<std::size_t>(rank)].push_back({"w", "parameter", DType::bf16, {64, 5, 41}, box, parts.data.back().data()});
    }
  }
  const test::TemporaryFolder folder;
  write(folder / "c", parts);
  const Checkpoint checkpoint(folder / "c");
  for (int round = 0; round < 500; ++round) {
    Box box;
    for (const std::int64_t extent : tensors[0].shape) {
      const auto a = static_cast<std::int64_t>(random() % (extent + 1)), b = static_cast<std::int64_t>(random() % (extent + 1));
      box.emplace_back(std::min(a, b), std::max(a, b));
    }
    const auto expected = bytes_of(tensors[0], box);
    std::vector<std::byte> found(expected.size());
    checkpoint.read(checkpoint.tensors()[0], box, found.data());
    ASSERT_EQ(found, expected);
  }
}

TEST(CheckpointOfRanks, processes_write_what_threads_write) {
  const test::TemporaryFolder folder;
  const Parts parts = three_ranks();
  write(folder / "threads", parts);
  CheckpointWriter writer(folder / "processes");
  std::vector<std::string> texts;
  for (std::size_t rank = 0; rank < parts.chunks.size(); ++rank) {
    const std::string file = folder / fmt::format("part{}", rank);
    const pid_t child = ::fork();
    if (child == 0) {
      write_file_atomically(file, write_checkpoint_part(writer.temporary(), static_cast<std::int64_t>(rank), parts.chunks[rank]));
      ::_exit(0);
    }
    int status = 1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
    texts.push_back(read_file(file));
  }
  writer.commit({{"step", 5}}, texts);
  for (const char* file : {"index.json", "rank_00000.safetensors", "rank_00001.safetensors", "rank_00002.safetensors"})
    EXPECT_EQ(read_file(folder / (std::string("processes/") + file)), read_file(folder / (std::string("threads/") + file))) << file;
}

TEST(CheckpointOfRanks, a_rank_without_chunks_has_no_file) {
  const test::TemporaryFolder folder;
  Parts parts = three_ranks();
  parts.chunks.insert(parts.chunks.begin() + 1, std::vector<ChunkToWrite>());
  write(folder / "c", parts);
  EXPECT_TRUE(fs::exists(folder / "c/rank_00003.safetensors"));
  EXPECT_FALSE(fs::exists(folder / "c/rank_00001.safetensors"));
  Checkpoint(folder / "c").verify();
}

TEST(CheckpointOfRanks, a_checksum_is_looked_at_once) {
  const test::TemporaryFolder folder;
  write(folder / "c", three_ranks());
  const Checkpoint checkpoint(folder / "c");
  const auto* w = checkpoint.find("w", "parameter");
  std::vector<float> row(6);
  checkpoint.read(*w, {{1, 2}, {0, 6}}, row.data());    // of rank 0's chunk
  for (const char* file : {"c/rank_00000.safetensors", "c/rank_00001.safetensors"}) flip_last_byte(folder / file);
  checkpoint.read(*w, {{1, 2}, {0, 6}}, row.data());
  EXPECT_USER_ERROR(checkpoint.read(*w, {{3, 4}, {0, 6}}, row.data()), "rank_00001.safetensors: 'parameter/w#0' is damaged");
  EXPECT_USER_ERROR(checkpoint.read(*w, {{3, 4}, {0, 6}}, row.data()), "rank_00001.safetensors: 'parameter/w#0' is damaged");
  EXPECT_USER_ERROR(checkpoint.verify(), "rank_00000.safetensors: 'parameter/w#0' is damaged", "rank_00001.safetensors: 'parameter/w#0'");
}

TEST(CheckpointOfRanks, threads_that_want_one_chunk_all_hear_of_its_damage) {
  const test::TemporaryFolder folder;
  write(folder / "c", three_ranks());
  flip_last_byte(folder / "c/rank_00002.safetensors");
  const Checkpoint checkpoint(folder / "c");
  std::vector<std::string> errors(8);
  on_ranks(errors.size(), [&](std::size_t rank) {
    std::vector<float> data(5);
    errors[rank] = test::user_error_of([&] { checkpoint.read(*checkpoint.find("v", "adam_v"), {{0, 5}}, data.data()); });
  });
  for (const std::string& error : errors)
    EXPECT_NE(error.find("rank_00002.safetensors: 'adam_v/v#0' is damaged"), std::string::npos) << error;
}

TEST(CheckpointOfRanks, a_part_that_is_missing_overlaps_or_leaves_a_hole_is_not_committed) {
  const test::TemporaryFolder folder;
  const auto error = [&](const Parts& parts, const std::function<void(std::vector<std::string>&)>& instead = {}) {
    const std::string message = internal_error_of([&] { write(folder / "c", parts, instead); });
    EXPECT_TRUE(fs::is_empty(folder.path())) << message;
    return message;
  };
  const auto has = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << "wanted: " << part << "\nfound:  " << message;
  };
  has(error(three_ranks(), [](auto& texts) { texts[1] = ""; }), "rank 1 gave no part");
  has(error(three_ranks(), [](auto& texts) { std::swap(texts[1], texts[2]); }), "rank 1 gave no part");
  has(error(three_ranks(), [](auto& texts) { texts.erase(texts.begin()); }), "rank 0 gave no part");
  has(error(three_ranks(), [](auto& texts) { texts.resize(1); }), "parameter of 'w': the chunks of all ranks hold 18 of its 24 elements");
  Parts twice = three_ranks();
  twice.chunks[2].push_back(twice.chunks[1][0]);
  const std::string message = error(twice);
  for (const char* part : {"parameter of 'w'", "[[3,4],[0,6]] in rank_00001.safetensors", "in rank_00002.safetensors overlap"})
    has(message, part);
  Parts other_shape = three_ranks();
  other_shape.chunks[1][0].shape = {5, 6};
  has(error(other_shape), "parameter of 'w' is \"fp32\" [4,6] and \"fp32\" [5,6]");
}

TEST(CheckpointOfRanks, a_rank_that_cannot_write_is_named_and_nothing_stays) {
  const test::TemporaryFolder folder;
  Parts parts = three_ranks();
  const std::vector<float> large(1 << 16);
  for (const std::size_t rank : {1, 2})
    parts.chunks[rank].push_back({fmt::format("of{}", rank), "parameter", DType::fp32, {1 << 16}, {{0, 1 << 16}}, large.data()});
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);    // then a write past the limit fails as it does on a full disk
  const rlimit small{1 << 16, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string message = test::user_error_of([&] { write(folder / "c", parts); });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  for (const char* part :
       {"rank_00001.safetensors: cannot be written: File too large", "rank_00002.safetensors: cannot be written: File too large"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(message.find("rank_00000"), std::string::npos) << message;
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointOfRanks, a_folder_that_a_rank_does_not_share_is_an_error) {
  const test::TemporaryFolder folder;
  const Parts parts = three_ranks();
  // Rank 1 is on another machine: the temporary folder is not there, or is another one of that name.
  EXPECT_USER_ERROR(
      write(folder / "c", parts, [&](auto& texts) { texts[1] = write_checkpoint_part(folder / "elsewhere", 1, parts.chunks[1]); }),
      "elsewhere/rank_00001.safetensors: cannot be written: No such file");
  EXPECT_USER_ERROR(write(folder / "c", parts,
                          [&](auto&) {
                            for (const auto& entry : fs::directory_iterator(folder.path()))
                              fs::remove(entry.path() / "rank_00001.safetensors");
                          }),
                    "rank_00001.safetensors: written by rank 1, not seen by rank 0", "share the file system");
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(CheckpointOfRanks, what_is_wrong_with_a_file_is_told_with_file_and_tensor) {
  const test::TemporaryFolder folder;
  const auto with_index = [&](const std::function<void(Json&)>& change) {
    write(folder / "c", three_ranks());
    Json index = read_json(folder / "c/index.json");
    change(index);
    std::ofstream(folder / "c/index.json") << index;
  };
  std::vector<float> all(24);
  const auto read_all = [&] {
    const Checkpoint checkpoint(folder / "c");
    checkpoint.read(*checkpoint.find("w", "parameter"), whole_box({4, 6}), all.data());
  };
  // A hole.
  with_index([](Json& index) { index["tensors"][0]["chunks"].erase(1); });
  EXPECT_USER_ERROR(read_all(), "the chunks of parameter of 'w' hold 18 of the 24 wanted elements");
  EXPECT_USER_ERROR(Checkpoint(folder / "c").verify(), "the chunks of parameter of 'w' hold 18 elements, the tensor has 24");
  // What is there is read nevertheless.
  const Checkpoint with_hole(folder / "c");
  with_hole.read(*with_hole.find("w", "parameter"), {{0, 3}, {0, 6}}, all.data());
  // An overlap.
  with_index([](Json& index) { index["tensors"][0]["chunks"].push_back(index["tensors"][0]["chunks"][1]); });
  EXPECT_USER_ERROR(read_all(), "index.json", "'parameter/w#0' in rank_00001.safetensors", "overlap", "'w'");
  // A chunk that is not in its file; a file that is gone.
  with_index([](Json& index) { index["tensors"][0]["chunks"][1]["entry"] = "parameter/w#7"; });
  EXPECT_USER_ERROR(read_all(), "index.json: rank_00001.safetensors has no 'parameter/w#7', a chunk of 'w'");
  with_index([](Json&) {});
  fs::remove(folder / "c/rank_00001.safetensors");
  EXPECT_USER_ERROR(read_all(), "rank_00001.safetensors");
}

TEST(CheckpointOfRanks, what_a_killed_writer_left_is_removed) {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "step_00000004.tmp-99");
  const Parts parts = three_ranks();
  const std::string part = write_checkpoint_part(folder / "step_00000004.tmp-99", 1, parts.chunks[1]);
  EXPECT_TRUE(fs::exists(folder / "step_00000004.tmp-99/rank_00001.safetensors"));
  EXPECT_TRUE(list_checkpoints(folder.path()).empty());
  remove_unfinished_checkpoints(folder.path());
  EXPECT_TRUE(fs::is_empty(folder.path()));
  // A writer that is given up.
  { const CheckpointWriter writer(folder / "step_00000004"); }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}
