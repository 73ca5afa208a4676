#include "checkpoint/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>

#include "checkpoint/convert.h"
#include "support/files.h"

using namespace sheaf;
using sheaf::test::TemporaryFolder;

namespace {

constexpr const char* kAll = ".cache/oracle/files/all.safetensors";
constexpr const char* kSharded = ".cache/oracle/files/sharded";

std::string with_header(const std::string& header, const std::string& data) {
  const std::uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

// What opening such a file says, after its path.
std::string error_of_bytes(const std::string& bytes) {
  const TemporaryFolder folder;
  const std::string path = folder.file("x.safetensors", bytes);
  const std::string message = test::user_error_of([&] { SafetensorsFile file(path); });
  if (message == "no error") return message;
  EXPECT_TRUE(message.starts_with(path + ": ")) << message;
  return message.substr(std::min(message.size(), path.size() + 2));
}
std::string error_of(const std::string& header, std::size_t data_bytes) {
  return error_of_bytes(with_header(header, std::string(data_bytes, '\1')));
}
const StoredTensor& tensor_of(const SafetensorsFile& file, const std::string& name) {
  for (const StoredTensor& tensor : file.tensors())
    if (tensor.name == name) return tensor;
  throw std::runtime_error("no tensor " + name);
}

}    // namespace

TEST(Safetensors, a_file_of_the_python_library_has_its_dtypes_shapes_and_metadata) {
  const SafetensorsFile file(kAll);
  EXPECT_EQ(file.tensors().size(), 13u);
  for (const auto dtype : {DType::fp64, DType::fp32, DType::bf16, DType::fp16}) {
    EXPECT_EQ(tensor_of(file, std::string(name(dtype))).dtype, dtype);
    EXPECT_EQ(tensor_of(file, std::string(name(dtype))).shape, (std::vector<std::int64_t>{3, 50, 7}));
  }
  for (const auto dtype : {DType::i64, DType::i32, DType::i16, DType::u8}) {
    const StoredTensor& tensor = tensor_of(file, std::string(name(dtype)));
    EXPECT_EQ(tensor.dtype, dtype);
    EXPECT_EQ(tensor.count(), 10);
    EXPECT_EQ(static_cast<int>(tensor.bytes[0]), 251);    // -5
  }
  EXPECT_EQ(tensor_of(file, "bool").dtype, DType::boolean);
  EXPECT_TRUE(tensor_of(file, "scalar").shape.empty());
  EXPECT_EQ(tensor_of(file, "scalar").count(), 1);
  EXPECT_EQ(tensor_of(file, "empty").count(), 0);
  EXPECT_EQ(file.metadata().at("note"), "ä \"quoted\"");
}
TEST(Safetensors, small_floats_widen_and_narrow_as_torch_does) {
  const SafetensorsFile file(kAll);
  for (const auto dtype : {DType::bf16, DType::fp16}) {
    const StoredTensor &small = tensor_of(file, std::string(name(dtype))), &wide = tensor_of(file, std::string(name(dtype)) + ".as_fp32");
    std::vector<std::byte> out(wide.bytes.size());
    convert(dtype, small.bytes.data(), DType::fp32, out.data(), small.count());
    EXPECT_EQ(std::memcmp(out.data(), wide.bytes.data(), out.size()), 0);
    convert(DType::fp32, tensor_of(file, "fp32").bytes.data(), dtype, out.data(), small.count());
    EXPECT_EQ(std::memcmp(out.data(), small.bytes.data(), small.bytes.size()), 0);
  }
}

TEST(SafetensorsErrors, shorter_than_8_bytes) {
  EXPECT_EQ(error_of_bytes(""), "has 0 bytes: not a safetensors file");
  EXPECT_EQ(error_of_bytes("1234567"), "has 7 bytes: not a safetensors file");
}
TEST(SafetensorsErrors, huge_header_length) {
  EXPECT_EQ(error_of_bytes(std::string(8, '\xff')), "its header would have 18446744073709551615 bytes: not a safetensors file");
}
TEST(SafetensorsErrors, header_beyond_the_file) {
  EXPECT_EQ(error_of_bytes(std::string("\x09\0\0\0\0\0\0\0{}", 10)), "its header should have 9 bytes, but the file has only 10: truncated");
}
TEST(SafetensorsErrors, header_that_is_no_json) {
  EXPECT_NE(error_of(R"({"a": )", 0).find("header: not JSON: parse error"), std::string::npos);
  EXPECT_NE(error_of("", 0).find("not JSON"), std::string::npos);
  EXPECT_NE(error_of("{\"\xff\": 1}", 0).find("not JSON"), std::string::npos);
  EXPECT_EQ(error_of(std::string(1000, '['), 0), "header: nested too deeply");
}
TEST(SafetensorsErrors, header_that_is_no_object) { EXPECT_EQ(error_of("[1]", 0), "its header is [1], an object was wanted"); }
TEST(SafetensorsErrors, entry_that_is_no_object) {
  EXPECT_EQ(error_of(R"({"a": 3})", 0), "tensor 'a': its header entry is 3, an object was wanted");
  EXPECT_EQ(error_of(R"({"a": {"dtype": "F32", "shape": [1]}})", 4), "tensor 'a' has no 'data_offsets'");
}
TEST(SafetensorsErrors, unknown_dtype) {
  EXPECT_EQ(
      error_of(R"({"a": {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}})", 1),
      "tensor 'a' has dtype \"F8_E4M3\"; supported: F64, F32, F16, BF16, I64, I32, I16, U16, U8, BOOL; make a folder in bf16 of it first");
  EXPECT_EQ(error_of(R"({"a": {"dtype": 7, "shape": [1], "data_offsets": [0, 1]}})", 1).substr(0, 21), "tensor 'a' has dtype ");
}
TEST(SafetensorsErrors, negative_or_broken_shape) {
  EXPECT_EQ(error_of(R"({"a": {"dtype": "U8", "shape": [2, -1], "data_offsets": [0, 1]}})", 1),
            "tensor 'a' has shape [2,-1]: -1 is not a size");
  EXPECT_EQ(error_of(R"({"a": {"dtype": "U8", "shape": [1.5], "data_offsets": [0, 1]}})", 1),
            "tensor 'a' has shape [1.5]: 1.5 is not a size");
  EXPECT_EQ(error_of(R"({"a": {"dtype": "U8", "shape": 1, "data_offsets": [0, 1]}})", 1),
            "tensor 'a' has shape 1, a list of integers was wanted");
}
TEST(SafetensorsErrors, overflowing_shape) {
  EXPECT_EQ(error_of(R"({"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}})", 0),
            "tensor 'a' has shape [4294967296, 4294967296], which is no possible size");
  EXPECT_NE(error_of(R"({"a": {"dtype": "U8", "shape": [18446744073709551615], "data_offsets": [0, 0]}})", 0).find("is not a size"),
            std::string::npos);
}
TEST(SafetensorsErrors, offsets_out_of_range_and_truncated_file) {
  EXPECT_EQ(error_of(R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}})", 7),
            "tensor 'a' ends at byte 8 of the data, but the file holds 7 bytes of data: truncated, or a wrong header");
}
TEST(SafetensorsErrors, begin_after_end_and_broken_offsets) {
  for (const auto* offsets : {"[4, 0]", "[0]", "[0, -4]", "{}", "[0, 4.5]", "[0, 1, 2]"})
    EXPECT_NE(error_of(std::string(R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": )") + offsets + "}}", 4)
                  .find("[begin, end] was wanted"),
              std::string::npos);
}
TEST(SafetensorsErrors, bytes_that_do_not_fit_the_shape) {
  EXPECT_EQ(error_of(R"({"a": {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 8]}})", 8),
            "tensor 'a' has 8 bytes, but [1, 3] of F32 needs 12");
}
TEST(SafetensorsErrors, overlapping_tensors) {
  EXPECT_EQ(
      error_of(
          R"({"b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}, "a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})", 6),
      "tensors 'a' and 'b' overlap");
}
TEST(SafetensorsErrors, holes_and_trailing_bytes) {
  EXPECT_EQ(error_of(R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}})", 6),
            "2 bytes before tensor 'a' belong to no tensor");
  EXPECT_EQ(error_of(R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})", 6), "the last 2 bytes belong to no tensor");
  EXPECT_EQ(error_of("{}", 1), "the last 1 bytes belong to no tensor");
}
TEST(SafetensorsErrors, a_name_given_twice) {
  EXPECT_EQ(
      error_of(
          R"({"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})", 0),
      "header: 'a' is given twice");
}
TEST(SafetensorsErrors, metadata_of_another_form) {
  EXPECT_EQ(error_of(R"({"__metadata__": {"format": 1}})", 0), "__metadata__ 'format' is 1, a string was wanted");
  EXPECT_EQ(error_of(R"({"__metadata__": "pt"})", 0), "__metadata__ is \"pt\", an object was wanted");
}
TEST(Safetensors, empty_tensors_and_padded_headers_are_fine) {
  EXPECT_EQ(error_of("{}      ", 0), "no error");
  EXPECT_EQ(
      error_of(
          R"({"z": {"dtype": "F32", "shape": [0, 3], "data_offsets": [4, 4]}, "a": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}})",
          4),
      "no error");
}

TEST(SafetensorsFolder, shards_of_an_index_are_one_folder) {
  const SafetensorsFolder folder(kSharded);
  ASSERT_EQ(folder.tensors().size(), 3u);
  EXPECT_EQ(folder.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(folder.at("b").dtype, DType::i64);
  EXPECT_EQ(folder.at("c").dtype, DType::bf16);
  EXPECT_EQ(folder.find("d"), nullptr);
}
TEST(SafetensorsFolder, a_missing_tensor_names_the_nearest) {
  const TemporaryFolder folder;
  folder.file("model.safetensors", with_header(R"({"lm_head.weight": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})", "x"));
  EXPECT_USER_ERROR(SafetensorsFolder(folder.path()).at("lm_heat.weight"), folder.path(),
                    "no tensor 'lm_heat.weight'; did you mean 'lm_head.weight'?");
}

namespace {
constexpr const char* kOne = R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}})";
std::string error_of_index(const std::string& index) {
  const TemporaryFolder folder;
  folder.file("s1.safetensors", with_header(kOne, "x"));
  folder.file("s2.safetensors", with_header(kOne, "y"));
  folder.file("model.safetensors.index.json", index);
  return test::user_error_of([&] { SafetensorsFolder weights(folder.path()); });
}
}    // namespace

TEST(SafetensorsFolderErrors, index_naming_a_missing_file) {
  EXPECT_NE(error_of_index(R"({"weight_map": {"a": "s3.safetensors"}})").find("index.json: names 's3.safetensors', which is missing"),
            std::string::npos);
}
TEST(SafetensorsFolderErrors, index_naming_a_tensor_that_its_file_lacks) {
  EXPECT_NE(error_of_index(R"({"weight_map": {"q": "s1.safetensors"}})")
                .find("tensor 'q' is said to be in 's1.safetensors', which does not hold it"),
            std::string::npos);
}
TEST(SafetensorsFolderErrors, a_tensor_in_two_shards) {
  const TemporaryFolder folder;
  folder.file("s1.safetensors", with_header(kOne, "x"));
  folder.file("s2.safetensors", with_header(R"({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
                                                "b": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}})",
                                            "yz"));
  folder.file("model.safetensors.index.json", R"({"weight_map": {"a": "s1.safetensors", "b": "s2.safetensors"}})");
  EXPECT_USER_ERROR(SafetensorsFolder(folder.path()), "tensor 'a' is in two files", "s1.safetensors", "s2.safetensors");
}
TEST(SafetensorsFolderErrors, index_of_another_form) {
  EXPECT_NE(error_of_index("{}").find("no weight_map"), std::string::npos);
  EXPECT_NE(error_of_index("[]").find("no weight_map"), std::string::npos);
  EXPECT_NE(error_of_index("{").find("not JSON"), std::string::npos);
  for (const auto* file : {R"("../s1.safetensors")", R"("..")", "3", R"("")"})
    EXPECT_NE(error_of_index(std::string(R"({"weight_map": {"a": )") + file + "}}").find("name of a file in this folder"),
              std::string::npos);
}
TEST(SafetensorsFolderErrors, no_weights_names_what_is_there_instead) {
  const TemporaryFolder folder;
  folder.file("pytorch_model.bin", "x");
  EXPECT_USER_ERROR(SafetensorsFolder(folder.path()), "neither model.safetensors nor model.safetensors.index.json",
                    "found pytorch_model.bin");
}
