// One test per file tests/golden/PASS/CASE.ir: "options {...}" (optional), input, "----", expected output. Whole text is compared.
// SHEAF_BLESS=1 rewrites the expected parts; the diff is the review.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "ops/op_table.h"
#include "passes/pass.h"

using namespace sheaf;

static std::vector<std::string> files() {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::recursive_directory_iterator("tests/golden"))
    if (entry.path().extension() == ".ir") out.push_back(entry.path().string());
  std::sort(out.begin(), out.end());
  return out;
}

class Golden : public ::testing::TestWithParam<std::string> {};

TEST_P(Golden, pass_gives_the_expected_text) {
  const std::string path = GetParam(), text = read_file(path);
  const std::string pass = std::filesystem::path(path).parent_path().filename();
  const std::size_t cut = text.find("----\n");
  ASSERT_NE(cut, std::string::npos) << path << " has no line ----";
  const std::string header = text.starts_with("options ") ? text.substr(0, text.find('\n') + 1) : "";
  const auto [options, graph] = parse_ir_file(text, all_ops());
  EXPECT_EQ(print(parse_graph(print(graph), all_ops())), print(graph)) << "text does not round-trip";
  const Graph result = find_pass(pass).run(graph, options);
  verify(result, find_pass(pass).holds);
  const std::string output = print(result);
  EXPECT_EQ(print(parse_graph(output, all_ops())), output) << "result does not round-trip";
  if (std::getenv("SHEAF_BLESS")) {
    std::ofstream(path) << header << print(graph) << "----\n" << output;
    return;
  }
  EXPECT_EQ(output, text.substr(cut + 5)) << path << "\nSHEAF_BLESS=1 rewrites it";
}

INSTANTIATE_TEST_SUITE_P(Passes, Golden, ::testing::ValuesIn(files()), [](const auto& info) {
  std::string name = info.param.substr(13);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
});

TEST(Passes, each_has_a_golden_test) {
  std::set<std::string> tested;
  for (const std::string& file : files()) tested.insert(std::filesystem::path(file).parent_path().filename());
  for (const Pass& pass : training_passes()) EXPECT_TRUE(tested.contains(std::string(pass.name))) << pass.name;
}

TEST(Passes, an_unknown_name_is_a_user_error_with_the_nearest) {
  try {
    find_pass("diferentiate");
    FAIL();
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'differentiate'?"), std::string::npos);
  }
}
