#include "checkpoint/hf_folder.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <set>

#include "checkpoint/convert.h"
#include "support/files.h"

using namespace sheaf;
using sheaf::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

constexpr const char* kQwen3 = ".cache/oracle/qwen3";

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}
std::vector<TensorToWrite> like(const SafetensorsFolder& from, std::optional<DType> dtype = {}) {
  std::vector<TensorToWrite> out;
  for (const StoredTensor& tensor : from.tensors()) out.push_back({tensor.name, dtype.value_or(tensor.dtype), tensor.shape});
  return out;
}
// Through fp32, as training does.
void copy_model(const HfFolder& from, const std::string& to, DType dtype, const HfWriterOptions& options) {
  HfWriter writer(to, from.config(), like(from.weights(), dtype), options);
  for (const StoredTensor& tensor : from.weights().tensors()) {
    std::vector<float> wide(static_cast<std::size_t>(tensor.count()));
    convert(tensor.dtype, tensor.bytes.data(), DType::fp32, wide.data(), tensor.count());
    writer.write(tensor.name, DType::fp32, wide.data());
  }
  writer.finish();
}
void write_small(const std::string& folder, float value) {
  HfWriter writer(folder, {{"model_type", "test"}}, {{"w", DType::fp32, {3}}});
  const float data[] = {value, value, value};
  writer.write("w", DType::fp32, data);
  writer.finish();
}
float first_of(const std::string& folder) {
  float value = 0;
  std::memcpy(&value, HfFolder(folder).weights().at("w").bytes.data(), sizeof(value));
  return value;
}

}    // namespace

TEST(HfFolder, a_folder_of_transformers_opens) {
  const HfFolder model(kQwen3);
  EXPECT_EQ(model.config()["model_type"], "qwen3");
  EXPECT_EQ(model.main_dtype(), DType::fp32);
  EXPECT_EQ(model.weights().at("lm_head.weight").shape, (std::vector<std::int64_t>{256, 64}));
  EXPECT_EQ(HfFolder(".cache/oracle/files/sharded").main_dtype(), DType::fp32);    // 6 elements against 5 of bf16; integers do not count
}
TEST(HfFolder, what_is_no_model_folder_says_so) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(HfFolder(folder / "none"), folder / "none: no such folder");
  EXPECT_USER_ERROR(HfFolder(folder.path()), folder.path() + ": no config.json in it");
  folder.file("config.json", "[]");
  EXPECT_USER_ERROR(HfFolder(folder.path()), "config.json: is a list, an object was wanted");
  folder.file("config.json", "{}");
  EXPECT_USER_ERROR(HfFolder(folder.path()), "no weights");
}

TEST(HfWriter, what_is_written_reads_back_single_and_in_shards) {
  const HfFolder model(kQwen3);
  const TemporaryFolder folder;
  for (const std::int64_t shard_bytes : {std::int64_t{5'000'000'000}, std::int64_t{70'000}, std::int64_t{1}}) {
    copy_model(model, folder / "out", DType::fp32, {.max_shard_bytes = shard_bytes});
    const HfFolder back(folder / "out");
    EXPECT_EQ(back.config(), model.config());
    ASSERT_EQ(back.weights().tensors().size(), model.weights().tensors().size());
    for (const StoredTensor& tensor : back.weights().tensors()) {
      const StoredTensor& original = model.weights().at(tensor.name);
      EXPECT_EQ(tensor.shape, original.shape);
      EXPECT_TRUE(std::ranges::equal(tensor.bytes, original.bytes)) << tensor.name;
    }
    std::size_t total = 0;
    for (const StoredTensor& tensor : model.weights().tensors()) total += tensor.bytes.size();
    const auto names = names_in(folder / "out");
    EXPECT_EQ(names.contains("model.safetensors"), shard_bytes > 1'000'000);
    EXPECT_EQ(names.contains("model.safetensors.index.json"), shard_bytes < 1'000'000);
    if (shard_bytes == 70'000) {
      for (const std::string& name : names) EXPECT_LT(fs::file_size(folder / ("out/" + name)), 70'000u + 4096) << name;
      EXPECT_EQ(read_json(folder / "out/model.safetensors.index.json")["metadata"]["total_size"], total);
    }
  }
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"out"});
}
TEST(HfWriter, bf16_and_mixed_dtypes_are_rounded_and_aligned) {
  const TemporaryFolder folder;
  HfWriter writer(folder / "m", {{"a", 1}},
                  {{"h", DType::bf16, {3}}, {"w", DType::fp32, {2}}, {"n", DType::i64, {1}}, {"none", DType::fp16, {0, 2}}});
  const float numbers[] = {1.0f, 1.00390625f, 1.01171875f};    // 1, two ties: the even neighbours are 1 and 1.015625
  const std::int64_t integer = -7;
  writer.write("n", DType::i64, &integer);
  writer.write("h", DType::fp32, numbers);
  writer.write("none", DType::fp32, nullptr);
  writer.write("w", DType::fp32, numbers);
  writer.finish();
  const HfFolder back(folder / "m");
  for (const StoredTensor& tensor : back.weights().tensors())
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.bytes.data()) % static_cast<std::uintptr_t>(size_bytes(tensor.dtype)), 0u)
        << tensor.name;
  float wide[3] = {};
  bf16_to_fp32(back.weights().at("h").bytes.data(), wide, 3);
  EXPECT_EQ(wide[1], 1.0f);
  EXPECT_EQ(wide[2], 1.015625f);
}
TEST(HfWriter, parts_of_a_tensor_are_the_tensor) {
  const TemporaryFolder folder;
  std::vector<float> data(1 << 21);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i) * 0.37f;
  const std::vector<TensorToWrite> tensors = {{"h", DType::bf16, {1 << 21}}, {"w", DType::fp32, {3, 7}}};
  HfWriter whole(folder / "whole", {{"a", 1}}, tensors), parts(folder / "parts", {{"a", 1}}, tensors);
  for (const char* name : {"h", "w"}) whole.write(name, DType::fp32, data.data());
  whole.finish();
  for (const auto& [first, count] : {std::pair(0, 1), {1, 1'500'000}, {1'500'001, (1 << 21) - 1'500'001}})
    parts.write_part("h", first, count, DType::fp32, data.data() + first);
  for (std::int64_t first = 0; first < 20; first += 10) parts.write_part("w", first, 10, DType::fp32, data.data() + first);
  EXPECT_THROW(parts.finish(), InternalError);                                             // the last element of w is missing
  EXPECT_THROW(parts.write_part("w", 10, 10, DType::fp32, data.data()), InternalError);    // written before
  EXPECT_THROW(parts.write_part("w", 20, 2, DType::fp32, data.data()), InternalError);     // w has 21
  parts.write_part("w", 20, 1, DType::fp32, data.data() + 20);
  parts.finish();
  EXPECT_EQ(read_file(folder / "parts/model.safetensors"), read_file(folder / "whole/model.safetensors"));
}
TEST(HfWriter, tokenizer_and_generation_files_come_along_and_nothing_else) {
  const TemporaryFolder folder;
  for (const auto* name :
       {"tokenizer.json", "merges.txt", "chat_template.jinja", "generation_config.json", "README.md", "optimizer.pt", "config.json"})
    folder.file(std::string("in/") + name, name);
  HfWriter writer(folder / "out", {{"a", 1}}, {}, {.side_files_from = folder / "in"});
  writer.finish();
  EXPECT_EQ(names_in(folder / "out"), (std::set<std::string>{"tokenizer.json", "merges.txt", "chat_template.jinja",
                                                             "generation_config.json", "config.json", "model.safetensors"}));
  EXPECT_EQ(read_file(folder / "out/merges.txt"), "merges.txt");
}
TEST(HfWriter, an_existing_model_is_replaced_only_at_the_end) {
  const TemporaryFolder folder;
  write_small(folder / "m", 1);
  folder.file("m/left_over.txt", "");
  {
    HfWriter writer(folder / "m", Json::object(), {{"w", DType::fp32, {3}}});
    EXPECT_EQ(names_in(folder.path()).size(), 2u);    // m and m.tmp-PID
  }
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"m"});    // not finished: nothing stays, the old one is whole
  EXPECT_EQ(first_of(folder / "m"), 1);
  write_small(folder / "m", 2);
  EXPECT_EQ(first_of(folder / "m"), 2);
  EXPECT_EQ(names_in(folder / "m"), (std::set<std::string>{"config.json", "model.safetensors"}));
  EXPECT_EQ(names_in(folder.path()), std::set<std::string>{"m"});
}
TEST(HfWriter, a_model_can_be_written_over_the_folder_that_it_is_read_from) {
  const TemporaryFolder folder;
  write_small(folder / "m", 3);
  const HfFolder model(folder / "m");
  copy_model(model, folder / "m", DType::bf16, {.side_files_from = folder / "m"});
  EXPECT_EQ(HfFolder(folder / "m").main_dtype(), DType::bf16);
  EXPECT_EQ(model.main_dtype(), DType::fp32);
}
TEST(HfWriter, parents_are_made_and_links_are_followed) {
  const TemporaryFolder folder;
  write_small(folder / "a/b/m/", 1);
  fs::create_directory_symlink(folder / "a/b/m", folder / "link");
  write_small(folder / "link", 2);
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(first_of(folder / "a/b/m"), 2);
}

TEST(HfWriterErrors, a_folder_that_is_no_model_is_left_alone) {
  const TemporaryFolder folder;
  folder.file("home/thesis.txt", "x");
  EXPECT_USER_ERROR(write_small(folder / "home", 1), folder / "home: exists and is not a folder that holds 'config.json'");
  folder.file("repository/config.json", "x");
  folder.file("repository/.git/HEAD", "x");
  EXPECT_USER_ERROR(write_small(folder / "repository", 1), "is left alone");
  EXPECT_USER_ERROR(write_small(folder / "home/thesis.txt", 1), "is left alone");
  EXPECT_EQ(read_file(folder / "home/thesis.txt"), "x");
  EXPECT_EQ(names_in(folder.path()), (std::set<std::string>{"home", "repository"}));
}
TEST(HfWriterErrors, a_place_where_nothing_can_be_written_names_path_and_reason) {
  const TemporaryFolder folder;
  folder.file("file", "x");
  EXPECT_USER_ERROR(write_small(folder / "file/m", 1), folder / "file/m: cannot be written: Not a directory");
  EXPECT_USER_ERROR(write_small("/proc/m", 1), "/proc/m: cannot be written: ");
}
TEST(HfWriterErrors, a_full_disk_names_the_file_and_removes_the_temporaries) {
  const TemporaryFolder folder;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  auto* const handler = std::signal(SIGXFSZ, SIG_IGN);    // then a write past the limit fails as it does on a full disk
  const rlimit small{1 << 16, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::vector<float> data(1 << 16);
  const std::string message = test::user_error_of([&] {
    HfWriter writer(folder / "m", Json::object(), {{"w", DType::bf16, {1 << 16}}});
    writer.write("w", DType::fp32, data.data());
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, handler);
  EXPECT_NE(message.find("model.safetensors: cannot be written: File too large"), std::string::npos) << message;
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

namespace {
std::string misfit(std::vector<NamedShape> expected, const std::function<bool(std::string_view)>& ignored = {}) {
  const SafetensorsFolder folder(".cache/oracle/files/sharded");    // a [2, 3], b [4], c [5]
  return test::user_error_of([&] { check_tensors(folder, expected, ignored); });
}
}    // namespace

TEST(CheckTensors, equal_lists_and_ignored_extras_pass) {
  EXPECT_EQ(misfit({{"c", {5}}, {"b", {4}}, {"a", {2, 3}}}), "no error");
  EXPECT_EQ(misfit({{"a", {2, 3}}}, [](std::string_view name) { return name != "a"; }), "no error");
}
TEST(CheckTensors, missing_extra_and_misshapen_are_named_at_once) {
  EXPECT_EQ(misfit({{"a", {3, 2}}, {"b", {4}}, {"x.weight", {7}}}),
            ".cache/oracle/files/sharded: the weights do not fit the model: 1 missing, 1 of wrong shape, 1 not in the model\n"
            "  missing: x.weight [7]\n"
            "  wrong shape: a is [2, 3], the model wants [3, 2]\n"
            "  not in the model: c [5]");
}
TEST(CheckTensors, at_most_8_lines_and_every_kind_is_seen) {
  std::vector<NamedShape> expected = {{"a", {1}}, {"b", {4}}};
  for (int i = 0; i < 16; ++i) expected.push_back({fmt::format("layer{}", i), {1}});
  const std::string message = misfit(expected);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 7);
  EXPECT_NE(message.find("not in the model: c [5]"), std::string::npos);
  EXPECT_NE(message.find("wrong shape: a"), std::string::npos);
  EXPECT_TRUE(message.ends_with("\n  and 12 more")) << message;
}

TEST(HfFolder, layers_that_predict_further_are_left_out) {
  const Json deepseek = {{"model_type", "deepseek_v3"}, {"num_hidden_layers", 61}, {"num_nextn_predict_layers", 1}};
  EXPECT_TRUE(predicts_further("model.layers.61.mlp.experts.0.up_proj.weight", deepseek));
  for (const char* name : {"model.layers.60.mlp.gate.weight", "model.layers.62.mlp.gate.weight", "model.layers.6.mlp.gate.weight",
                           "model.layers..mlp", "model.norm.weight"})
    EXPECT_FALSE(predicts_further(name, deepseek)) << name;
  EXPECT_FALSE(predicts_further("model.layers.61.mlp.gate.weight", {{"num_hidden_layers", 61}}));    // a layer too many
  EXPECT_TRUE(predicts_further("model.mtp_block.0.mlp.up_proj.weight", {{"model_type", "ernie4_5_moe"}}));
  EXPECT_FALSE(is_left_out("lm_head.weight", deepseek, false));
  EXPECT_TRUE(is_left_out("lm_head.weight", deepseek, true));
}

// Run by read_by_transformers.py, which gives the folder and then reads what is in it.
TEST(HfWriterForPython, writes_folders) {
  const char* target = std::getenv("SHEAF_TEST_WRITE_TO");
  if (!target) GTEST_SKIP() << "only as part of checkpoint_read_by_transformers";
  const HfFolder model(kQwen3);
  copy_model(model, fs::path(target) / "single", DType::fp32, {});
  copy_model(model, fs::path(target) / "sharded", DType::fp32, {.max_shard_bytes = 70'000});
  copy_model(model, fs::path(target) / "bf16", DType::bf16, {.max_shard_bytes = 70'000});
}
