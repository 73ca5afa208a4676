// Mixtures of experts in HuggingFace folders: names, every form read, what is wrong with a folder. experts_by_transformers.py compares with
// what transformers writes and reads.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "checkpoint/convert.h"
#include "checkpoint/expert_names.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/weight_reader.h"
#include "support/files.h"

using namespace sheaf;
using sheaf::test::TemporaryFolder;
namespace fs = std::filesystem;

namespace {

using Numbers = std::vector<float>;
using Tensors = std::map<std::string, std::pair<std::vector<std::int64_t>, Numbers>>;    // of a folder

std::int64_t size_of(const NamedShape& weight) {
  std::int64_t n = 1;
  for (const std::int64_t extent : weight.shape) n *= extent;
  return n;
}

// 4 experts, hidden size 7, 3 inside; and a router, which has another name on the Hub of mixtral.
const std::vector<NamedShape> kWeights = {{"model.embed_tokens.weight", {5, 6}},
                                          {"model.layers.3.mlp.gate.weight", {4, 6}},
                                          {"model.layers.3.mlp.experts.gate_up_proj", {4, 6, 7}},
                                          {"model.layers.3.mlp.experts.down_proj", {4, 7, 3}}};

Numbers numbers(std::int64_t count) {
  Numbers out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(static_cast<float>(i) * 0.25f - 9);    // exact in bf16
  return out;
}
std::vector<Numbers> numbers_of(std::span<const NamedShape> weights) {
  std::vector<Numbers> out;
  for (const NamedShape& weight : weights) out.push_back(numbers(size_of(weight)));
  return out;
}

void write(const std::string& folder, const std::string& type, const Tensors& tensors) {
  std::vector<TensorToWrite> declared;
  for (const auto& [name, tensor] : tensors) declared.push_back({name, DType::bf16, tensor.first});
  HfWriter writer(folder, {{"model_type", type}}, declared);
  for (const auto& [name, tensor] : tensors) writer.write(name, DType::fp32, tensor.second.data());
  writer.finish();
}
// The tensors of a folder in one of the forms that are written, or transposed.
Tensors tensors_in(Experts experts, const std::string& type, std::span<const NamedShape> weights) {
  Tensors out;
  const std::vector<Numbers> data = numbers_of(weights);
  if (experts != Experts::transposed) {
    for (const WeightPart& part : parts_to_write(type, experts, weights, DType::bf16)) {
      const Numbers& all = data[part.weight];
      const std::int64_t count = size_of({"", part.tensor.shape});
      out[part.tensor.name] = {part.tensor.shape, {all.begin() + part.first, all.begin() + part.first + count}};
    }
    return out;
  }
  for (std::size_t w = 0; w < weights.size(); ++w) {
    std::vector<std::int64_t> shape = weights[w].shape;
    Numbers turned = data[w];
    if (shape.size() == 3) {
      const std::int64_t rows = shape[1], columns = shape[2];
      std::swap(shape[1], shape[2]);
      for (std::int64_t i = 0; i < size_of(weights[w]); ++i) {
        const std::int64_t e = i / (rows * columns), row = i / columns % rows, column = i % columns;
        turned[static_cast<std::size_t>((e * columns + column) * rows + row)] = data[w][static_cast<std::size_t>(i)];
      }
    }
    out[weights[w].name] = {shape, turned};
  }
  return out;
}

// Every range of some lengths that begins anywhere.
void expect_all_ranges(WeightReader& reader, std::span<const NamedShape> weights) {
  const std::vector<Numbers> data = numbers_of(weights);
  for (std::size_t w = 0; w < weights.size(); ++w)
    for (const std::int64_t length : {std::int64_t{1}, std::int64_t{5}, std::int64_t{50}, size_of(weights[w])})
      for (std::int64_t first = 0; first + length <= size_of(weights[w]); ++first) {
        Numbers got(static_cast<std::size_t>(length));
        reader.read(w, first, length, got.data());
        ASSERT_TRUE(std::equal(got.begin(), got.end(), data[w].begin() + first)) << weights[w].name << " " << first << " " << length;
      }
}

std::string names(const std::string& type, Experts experts, const NamedShape& weight) {
  std::string out;
  for (const NamedShape& tensor : file_tensors(type, experts, weight).tensors) out += tensor.name + " " + shape_text(tensor.shape) + "\n";
  return out;
}

}    // namespace

TEST(ExpertNames, are_those_of_the_hub) {
  const NamedShape gate_up = {"model.layers.0.mlp.experts.gate_up_proj", {2, 6, 7}},
                   down = {"model.layers.0.mlp.experts.down_proj", {2, 7, 3}};
  EXPECT_EQ(names("qwen3_moe", Experts::separate, gate_up),
            "model.layers.0.mlp.experts.0.gate_proj.weight [3, 7]\nmodel.layers.0.mlp.experts.0.up_proj.weight [3, 7]\n"
            "model.layers.0.mlp.experts.1.gate_proj.weight [3, 7]\nmodel.layers.0.mlp.experts.1.up_proj.weight [3, 7]\n");
  EXPECT_EQ(names("mixtral", Experts::separate, gate_up),
            "model.layers.0.block_sparse_moe.experts.0.w1.weight [3, 7]\nmodel.layers.0.block_sparse_moe.experts.0.w3.weight [3, 7]\n"
            "model.layers.0.block_sparse_moe.experts.1.w1.weight [3, 7]\nmodel.layers.0.block_sparse_moe.experts.1.w3.weight [3, 7]\n");
  EXPECT_EQ(names("minimax_m2", Experts::separate, down),
            "model.layers.0.block_sparse_moe.experts.0.w2.weight [7, 3]\nmodel.layers.0.block_sparse_moe.experts.1.w2.weight [7, 3]\n");
  EXPECT_EQ(names("minimax_m2", Experts::separate, {"model.layers.0.mlp.e_score_correction_bias", {2}}),
            "model.layers.0.block_sparse_moe.e_score_correction_bias [2]\n");
  EXPECT_EQ(names("ernie4_5_moe", Experts::separate, {"model.layers.0.mlp.gate.moe_statics.e_score_correction_bias", {1, 2}}),
            "model.layers.0.mlp.moe_statics.e_score_correction_bias [1, 2]\n");
  EXPECT_EQ(names("gpt_oss", Experts::mxfp4, {"model.layers.0.mlp.experts.gate_up_proj", {2, 64, 6}}),
            "model.layers.0.mlp.experts.gate_up_proj_blocks [2, 6, 2, 16]\nmodel.layers.0.mlp.experts.gate_up_proj_scales [2, 6, 2]\n");
  EXPECT_EQ(names("gpt_oss", Experts::mxfp4, {"model.layers.0.mlp.experts.gate_up_proj_bias", {2, 6}}),
            "model.layers.0.mlp.experts.gate_up_proj_bias [2, 6]\n");
}
TEST(ExpertNames, a_model_without_experts_has_the_names_of_its_weights) {
  for (const char* type : {"llama", "llama4_text", "gpt_oss"}) EXPECT_EQ(experts_of(type).front(), Experts::fused) << type;
  EXPECT_EQ(names("llama", Experts::fused, kWeights[0]), "model.embed_tokens.weight [5, 6]\n");
  EXPECT_FALSE(has_experts(std::span(kWeights).first(2)));
  EXPECT_TRUE(has_experts(kWeights));
}
TEST(ExpertNames, what_experts_are_chosen_by_stays_in_fp32) {
  const std::vector<NamedShape> weights = {{"model.layers.0.mlp.gate.weight", {2, 3}},
                                           {"model.layers.0.mlp.gate.e_score_correction_bias", {2}}};
  const auto dtypes = [&](const std::string& type) {
    std::vector<DType> out;
    for (const WeightPart& part : parts_to_write(type, Experts::separate, weights, DType::bf16)) out.push_back(part.tensor.dtype);
    return out;
  };
  EXPECT_EQ(dtypes("deepseek_v3"), (std::vector{DType::bf16, DType::fp32}));
  EXPECT_EQ(dtypes("ernie4_5_moe"), (std::vector{DType::fp32, DType::fp32}));
}

TEST(WeightReader, any_range_of_any_form_is_the_weight) {
  const TemporaryFolder folder;
  for (const Experts experts : {Experts::separate, Experts::fused, Experts::transposed}) {
    write(folder / "m", "mixtral", tensors_in(experts, "mixtral", kWeights));
    const HfFolder model(folder / "m");
    WeightReader reader(model.weights(), "mixtral", kWeights);
    EXPECT_EQ(reader.experts(), experts);
    expect_all_ranges(reader, kWeights);
  }
}
// Of the two matrices of an expert one alone can be square: the other one says which way round they lie.
TEST(WeightReader, a_square_matrix_lies_as_the_other_one) {
  const TemporaryFolder folder;
  const std::vector<NamedShape> weights = {{"model.layers.0.mlp.experts.gate_up_proj", {3, 6, 6}},
                                           {"model.layers.0.mlp.experts.down_proj", {3, 6, 3}}};
  for (const Experts experts : {Experts::fused, Experts::transposed}) {
    write(folder / "m", "qwen3_moe", tensors_in(experts, "qwen3_moe", weights));
    const HfFolder model(folder / "m");
    WeightReader reader(model.weights(), "qwen3_moe", weights);
    expect_all_ranges(reader, weights);
  }
}
TEST(WeightReader, mxfp4_is_two_numbers_a_byte_the_low_one_first) {
  const TemporaryFolder folder;
  const NamedShape weight = {"model.layers.0.mlp.experts.down_proj", {2, 32, 3}};
  HfWriter writer(folder / "m", {{"model_type", "gpt_oss"}, {"quantization_config", {{"quant_method", "mxfp4"}}}},
                  {{weight.name + "_blocks", DType::u8, {2, 3, 1, 16}}, {weight.name + "_scales", DType::u8, {2, 3, 1}}});
  std::array<std::uint8_t, 96> blocks{};
  blocks[0] = 0x71;              // expert 0, output 0: 0.5 at input 0, 6 at input 1
  blocks[5 * 16 + 15] = 0xd9;    // expert 1, output 2: -0.5 at input 30, -3 at input 31
  const std::array<std::uint8_t, 6> scales = {128, 127, 127, 127, 127, 124};
  writer.write(weight.name + "_blocks", DType::u8, blocks.data());
  writer.write(weight.name + "_scales", DType::u8, scales.data());
  writer.finish();
  const HfFolder model(folder / "m");
  EXPECT_FALSE(model.config().contains("quantization_config"));    // what is written from it is not quantised
  WeightReader reader(model.weights(), "gpt_oss", {&weight, 1});
  EXPECT_EQ(reader.experts(), Experts::mxfp4);
  EXPECT_EQ(written_experts(reader.experts(), "gpt_oss"), Experts::fused);
  Numbers got(2 * 32 * 3), wanted(2 * 32 * 3);
  wanted[0] = 1, wanted[3] = 12, wanted[(32 + 30) * 3 + 2] = -0.0625f, wanted[(32 + 31) * 3 + 2] = -0.375f;
  reader.read(0, 0, 192, got.data());
  EXPECT_EQ(got, wanted);
}

TEST(WeightReaderErrors, a_missing_expert_is_named_and_one_too_many) {
  const TemporaryFolder folder;
  auto tensors = tensors_in(Experts::separate, "qwen3_moe", kWeights);
  const auto error = [&] {
    write(folder / "m", "qwen3_moe", tensors);
    const HfFolder model(folder / "m");
    return test::user_error_of([&] { WeightReader(model.weights(), "qwen3_moe", kWeights); });
  };
  const auto up = tensors.extract("model.layers.3.mlp.experts.2.up_proj.weight");
  EXPECT_EQ(error(), (folder / "m") +
                         ": the weights do not fit the model: 1 missing, 0 of wrong shape, 0 not in the model\n"
                         "  missing: model.layers.3.mlp.experts.2.up_proj.weight [3, 7]");
  tensors["model.layers.3.mlp.experts.4.up_proj.weight"] = up.mapped();
  EXPECT_NE(error().find("not in the model: model.layers.3.mlp.experts.4.up_proj.weight [3, 7]"), std::string::npos) << error();
  tensors = tensors_in(Experts::fused, "qwen3_moe", kWeights);
  tensors.erase("model.layers.3.mlp.experts.down_proj");
  EXPECT_NE(error().find("missing: model.layers.3.mlp.experts.down_proj [4, 7, 3]"), std::string::npos) << error();
  tensors = tensors_in(Experts::separate, "qwen3_moe", kWeights);
  std::erase_if(tensors, [](const auto& tensor) {
    return tensor.first.find(".experts.1.") != std::string::npos || tensor.first.find(".experts.3.") != std::string::npos ||
           tensor.first.find(".experts.0.") != std::string::npos;
  });
  EXPECT_EQ(std::ranges::count(error(), '\n'), 7);
  EXPECT_TRUE(error().ends_with("\n  and 3 more")) << error();
}
TEST(WeightReaderErrors, quantised_weights_are_refused) {
  const TemporaryFolder folder;
  write(folder / "m", "qwen3_moe", tensors_in(Experts::separate, "qwen3_moe", kWeights));
  folder.file("m/config.json",
              R"({"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}})");
  EXPECT_USER_ERROR(HfFolder(folder / "m"), "m/config.json: 'quantization_config' has quant_method \"fp8\", which is not read");
  std::vector<NamedShape> weights = {{"model.layers.0.mlp.experts.down_proj", {2, 32, 3}}};
  const auto& name = weights[0].name;
  write(folder / "m", "gpt_oss", {{name + "_blocks", {{2, 3, 1, 16}, numbers(96)}}, {name + "_scales", {{2, 3, 1}, numbers(6)}}});
  EXPECT_USER_ERROR(WeightReader(HfFolder(folder / "m").weights(), "gpt_oss", weights), "down_proj_blocks' is bf16; wanted u8");
}

// Run by experts_by_transformers.py: of every folder in FOLDER/in, whose weights are in its weights.json, the weights as they were read
// (FOLDER/read/NAME) and the folder in every form that can be written (FOLDER/FORM/NAME).
TEST(ExpertsForPython, converts_folders) {
  const char* target = std::getenv("SHEAF_TEST_CONVERT");
  if (!target) GTEST_SKIP() << "only as part of checkpoint_experts";
  for (const auto& entry : fs::directory_iterator(fs::path(target) / "in")) {
    const HfFolder model(entry.path());
    const std::string type = model.config()["model_type"].get<std::string>(), name = entry.path().filename();
    std::vector<NamedShape> weights;
    for (const Json& weight : read_json(entry.path() / "weights.json"))
      weights.push_back({weight[0].get<std::string>(), weight[1].get<std::vector<std::int64_t>>()});
    WeightReader reader(model.weights(), type, weights);
    const auto write_in = [&](const fs::path& folder, Experts experts, DType dtype) {
      const std::vector<WeightPart> parts = parts_to_write(type, experts, weights, dtype);
      Json config = model.config();
      set_dtype(config, dtype);
      HfWriter writer(folder / name, config, tensors_of(parts));
      for (const WeightPart& part : parts) {
        Numbers data(static_cast<std::size_t>(size_of({"", part.tensor.shape})));
        reader.read(part.weight, part.first, static_cast<std::int64_t>(data.size()), data.data());
        writer.write(part.tensor.name, DType::fp32, data.data());
      }
      writer.finish();
    };
    write_in(fs::path(target) / "read", Experts::fused, DType::fp32);
    write_in(fs::path(target) / "fused", Experts::fused, model.main_dtype());
    if (experts_of(type).front() == Experts::separate) write_in(fs::path(target) / "separate", Experts::separate, model.main_dtype());
    write_file_atomically(fs::path(target) / ("form_" + name), std::string(sheaf::name(reader.experts())));
  }
}
