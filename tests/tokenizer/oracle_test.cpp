// Ids and texts that HuggingFace `tokenizers` gives, for tokenizers of every kind.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/regex.h"
#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "tokenizer/cases.h"

using namespace sheaf;

namespace {

std::vector<std::int32_t> encoded(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> ids;
  tokenizer.encode(text, ids);
  return ids;
}

}    // namespace

TEST(TokenizerOracle, ids_and_texts_are_those_of_the_library) {
  const auto names = test::tokenizer_names();
  ASSERT_GE(names.size(), 25u);
  for (const std::string& name : names) {
    const std::string folder = test::tokenizer_folder() + "/" + name;
    const auto tokenizer = Tokenizer::read(folder + "/tokenizer.json");
    test::CaseReader cases(folder + "/cases");
    int failures = 0, count = 0;
    while (!cases.done() && failures < 5) {
      const std::string text = cases.text();
      const auto plain = cases.ids(), full = cases.ids();
      const std::string decoded = cases.text(), without_special = cases.text();
      ++count;
      for (int again = 0; again < 2; ++again) EXPECT_EQ(encoded(*tokenizer, text), plain) << name << ": " << testing::PrintToString(text);
      EXPECT_EQ(tokenizer->encode_with_template(text), full) << name << ": " << testing::PrintToString(text);
      EXPECT_EQ(tokenizer->decode(plain, false), decoded) << name << ": " << testing::PrintToString(text);
      EXPECT_EQ(tokenizer->decode(full, true), without_special) << name << ": " << testing::PrintToString(text);
      if (testing::Test::HasFailure()) ++failures;
    }
    EXPECT_GT(count, 50) << name;
    if (failures) return;
  }
}

TEST(TokenizerOracle, classes_of_patterns_have_the_same_characters) {
  if (std::getenv("SHEAF_TOKENIZER_CASES")) GTEST_SKIP();
  std::ifstream in(test::tokenizer_folder() + "/classes");
  int lines = 0;
  for (std::string line; std::getline(in, line); ++lines) {
    const std::string pattern = line.substr(0, line.find('\t'));
    if (pattern == "\\p{Mc}") continue;    // U+1171E went from Mn to Mc after Unicode 14
    std::vector<char> wanted(0x110000);
    std::istringstream ends(line.substr(pattern.size()));
    for (std::size_t first, last; ends >> first >> last;)
      for (std::size_t c = first; c <= last; ++c) wanted[c] = 1;
    const Regex regex(translate_pattern(pattern, pattern), pattern);
    int wrong = 0;
    for (char32_t c = 0; c < 0xE0200; ++c) {    // as classes.py
      if (c == 0xD800) c = 0xE000;
      if (c == 0x32400) c = 0xE0000;
      std::string text;
      append_utf8(c, text);
      if (regex.find(text, 0).has_value() != (wanted[c] != 0) && ++wrong < 5)
        ADD_FAILURE() << pattern << ": U+" << std::hex << static_cast<std::uint32_t>(c) << (wanted[c] ? " is in it" : " is not in it");
    }
  }
  EXPECT_GE(lines, 40);
}

TEST(TokenizerOracle, normal_forms_of_every_character) {
  if (std::getenv("SHEAF_TOKENIZER_CASES")) GTEST_SKIP();
  for (const std::string form : {"NFC", "NFD", "NFKC", "NFKD", "Lowercase"}) {
    const LargeJson json = {{"type", form}};
    const Normalizer normalizer(JsonNode(json, form));
    test::CaseReader cases(test::tokenizer_folder() + "/forms/" + form);
    int wrong = 0, count = 0;
    for (; !cases.done(); ++count) {
      const std::string text = cases.text(), wanted = cases.text();
      std::string buffer;
      const std::string_view made = normalizer.run(text, true, buffer);
      if (made != wanted && ++wrong <= 8)
        ADD_FAILURE() << form << ": U+" << std::hex << static_cast<std::uint32_t>(utf8_at(text, 1).code) << " "
                      << testing::PrintToString(std::string(made)) << " wanted " << testing::PrintToString(wanted);
    }
    EXPECT_GT(count, 100) << form;
    EXPECT_EQ(wrong, 0) << form;
  }
}
