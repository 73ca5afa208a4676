#include "base/text.h"

#include <gtest/gtest.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/json.h"

using namespace sheaf;

TEST(Text, nearest_finds_a_typo_and_refuses_what_is_far) {
  EXPECT_EQ(nearest("gradient_cliping", {"gradient_clipping", "seed"}), "gradient_clipping");
  EXPECT_EQ(nearest("xyzzy", {"gradient_clipping", "seed"}), "");
}
TEST(Text, split_and_join_are_inverse) {
  EXPECT_EQ(join(split("a..b", '.'), "."), "a..b");
  EXPECT_TRUE(split("", '.').empty());
}
TEST(Text, shortest_doubles_parse_back_and_look_like_numbers) {
  for (const double x : {1.0, 1e-6, 0.1, 3e300, -2.5}) EXPECT_EQ(std::stod(shortest(x)), x);
  EXPECT_EQ(shortest(1.0), "1.0");
  EXPECT_EQ(shortest(1e-6), "1e-06");
}
TEST(Text, units) {
  EXPECT_EQ(human_bytes(1536), "1.5 KiB");
  EXPECT_EQ(human_time(75), "1m15s");
  EXPECT_EQ(human_count(2.4e6), "2.4M");
}
TEST(DTypes, every_name_reads_back) {
  for (int i = 0; i <= static_cast<int>(DType::boolean); ++i) {
    const auto d = static_cast<DType>(i);
    EXPECT_EQ(dtype_from_name(name(d)), d);
    EXPECT_EQ(dtype_from_safetensors(safetensors_name(d)), d);
    EXPECT_EQ(dtype_from_hf(hf_name(d)), d);
  }
  EXPECT_EQ(dtype_from_hf("torch.bfloat16"), DType::bf16);
}

static std::string error_of(const std::string& text) {
  try {
    parse_json(text, "run.json");
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}
TEST(JsonFile, comments_are_allowed) { EXPECT_EQ(parse_json("// a\n{\"x\": /* b */ 1}", "t")["x"], 1); }
TEST(JsonFile, broken_json_names_line_and_column) { EXPECT_EQ(error_of("{\n  \"x\": 1,,\n}").substr(0, 21), "run.json:2:10: not JS"); }
TEST(JsonFile, a_repeated_key_is_an_error) { EXPECT_EQ(error_of(R"({"a": {"b": 1, "b": 2}})"), "run.json: key 'b' is given twice"); }
TEST(JsonFile, equal_keys_of_two_objects_are_fine) { EXPECT_EQ(error_of(R"({"a": {"b": 1}, "c": {"b": 2}})"), "no error"); }
