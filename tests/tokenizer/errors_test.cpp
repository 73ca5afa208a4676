// What a tokenizer.json that is broken or not supported gets; and text that is not UTF-8.
#include <gtest/gtest.h>

#include "data/tokenizer/tokenizer.h"
#include "data/tokenizer/utf8.h"
#include "support/files.h"

using namespace sheaf;

namespace {

// A small good file, with one part replaced.
std::string file(const std::string& from = "", const std::string& to = "") {
  std::string json = R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true}],
    "normalizer": null,
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false}]},
    "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
    "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "vocab": {"a": 0, "b": 1, "ab": 2, " ": 3}, "merges": [["a", "b"]]}})";
  if (!from.empty()) {
    const std::size_t at = json.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    json.replace(at, from.size(), to);
  }
  return json;
}
std::unique_ptr<Tokenizer> parse(const std::string& from = "", const std::string& to = "") {
  return Tokenizer::parse(file(from, to), "t.json");
}

}    // namespace

TEST(TokenizerErrors, the_file_that_they_change_is_good) {
  const auto tokenizer = parse();
  EXPECT_EQ(tokenizer->encode_with_template("ab a"), (std::vector<std::int32_t>{4, 2, 3, 0}));
  EXPECT_EQ(tokenizer->vocab_size(), 5);
  EXPECT_EQ(tokenizer->id("<s>"), 4);
  EXPECT_EQ(tokenizer->id("zz"), std::nullopt);
  EXPECT_EQ(tokenizer->hash().size(), 16u);
  EXPECT_NE(tokenizer->hash(), parse("\"Fuse\"", "\"ByteFallback\"")->hash());
  EXPECT_EQ(parse(R"([["a", "b"]])", R"(["a b"])")->encode_with_template("ab"), (std::vector<std::int32_t>{4, 2}));
}

TEST(TokenizerErrors, json) {
  EXPECT_USER_ERROR(Tokenizer::parse("{\"model\": ", "t.json"), "t.json:1:", "not JSON");
  EXPECT_USER_ERROR(Tokenizer::parse("[]", "t.json"), "t.json:", "a list", "an object was wanted");
  EXPECT_USER_ERROR(Tokenizer::parse("{}", "t.json"), "'model' is missing");
  EXPECT_USER_ERROR(parse("\"normalizer\"", "\"normaliser\""), "'normaliser'", "did you mean 'normalizer'");
  EXPECT_USER_ERROR(parse("\"1.0\"", "\"2.0\""), "t.json: version", "2.0");
  EXPECT_USER_ERROR(parse("\"a\": 0", "\"a\": 0, \"a\": 1"), "'a'", "twice");
  EXPECT_USER_ERROR(Tokenizer::read("no/such/tokenizer.json"), "no such file");
  EXPECT_USER_ERROR(Tokenizer::parse(std::string(100'000, '['), "t.json"), "not JSON");
}

TEST(TokenizerErrors, model) {
  EXPECT_USER_ERROR(parse("\"BPE\"", "\"Unigram\""), "t.json: model.type", "'Unigram' is not supported", "BPE");
  EXPECT_USER_ERROR(parse("\"BPE\"", "\"WordPiece\""), "'WordPiece'");
  EXPECT_USER_ERROR(parse("\"dropout\": null", "\"dropout\": 0.1"), "model.dropout", "0.1");
  EXPECT_USER_ERROR(parse("\"unk_token\": null", "\"unk_token\": \"?\""), "model.unk_token", "'?'");
  EXPECT_USER_ERROR(parse("\"dropout\": null", "\"droput\": null"), "'droput'");
  EXPECT_USER_ERROR(parse("\"b\": 1", "\"b\": 0"), "model.vocab", "'a'", "'b'", "same id 0");
  EXPECT_USER_ERROR(parse("\"b\": 1", "\"b\": -1"), "model.vocab['b']", "an integer from 0");
  EXPECT_USER_ERROR(parse("\"b\": 1", "\"b\": 1.5"), "model.vocab['b']");
  EXPECT_USER_ERROR(parse("\"b\": 1", "\"b\": 60000000"), "4 tokens, but ids up to 60000000");
  EXPECT_USER_ERROR(parse("\"b\": 1", "\"b\": 2000000000"), "2000000000");
}

TEST(TokenizerErrors, merges) {
  EXPECT_USER_ERROR(parse(R"(, "merges": [["a", "b"]])", ""), "t.json: model", "no 'merges'");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", "[]"), "model.merges", "empty");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([["a", "c"]])"), "model.merges[0]", "'c' is not in the vocabulary");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([["a", "b"], ["b", "a"]])"), "model.merges[1]", "makes 'ba'", "not in the vocabulary");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([["", "b"]])"), "model.merges[0]", "cycle");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([["ab", ""]])"), "model.merges[0]", "cycle");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([["a", "b", "c"]])"), "model.merges[0]");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"(["ab"])"), "model.merges[0]", "'ab' is not two tokens");
  EXPECT_USER_ERROR(parse(R"([["a", "b"]])", R"([7])"), "model.merges[0]");
  EXPECT_USER_ERROR(parse("\"dropout\": null", "\"continuing_subword_prefix\": \"##\""), "model.merges[0]", "'##'");
}

TEST(TokenizerErrors, components) {
  const std::string split = R"({"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Isolated", "invert": false})";
  EXPECT_USER_ERROR(parse(split, R"({"type": "BertPreTokenizer"})"), "t.json: pre_tokenizer.pretokenizers[0].type", "'BertPreTokenizer'",
                    "Metaspace");
  EXPECT_USER_ERROR(parse("Isolated", "isolated"), "pretokenizers[0].behavior", "'isolated'", "MergedWithNext");
  EXPECT_USER_ERROR(parse(", \"invert\": false", ""), "pretokenizers[0]", "'invert' is missing");
  EXPECT_USER_ERROR(parse("\"Isolated\",", "\"Isolated\", \"limit\": 3,"), "'limit'");
  EXPECT_USER_ERROR(parse(split, R"({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true}, )" + split),
                    "ByteLevel must be the last");
  EXPECT_USER_ERROR(parse("\"normalizer\": null", R"("normalizer": {"type": "Nmt"})"), "t.json: normalizer.type", "'Nmt'", "NFKC");
  EXPECT_USER_ERROR(parse("\"Fuse\"", "\"CTC\""), "t.json: decoder.type", "'CTC'", "ByteFallback");
  EXPECT_USER_ERROR(parse("\"TemplateProcessing\"", "\"BertProcessing\""), "post_processor.type", "'BertProcessing'");
  EXPECT_USER_ERROR(parse("{\"SpecialToken\": {\"id\": \"<s>\"", "{\"SpecialToken\": {\"id\": \"<t>\""), "post_processor.single[0]",
                    "'<t>'");
  EXPECT_USER_ERROR(parse("\"ids\": [4]", "\"ids\": [5]"), "id 5, but the vocabulary has 5 ids");
  EXPECT_USER_ERROR(parse("\"id\": 4", "\"id\": 9"), "t.json: added_tokens[0]", "id 9", "is 4");
  EXPECT_USER_ERROR(parse("\"content\": \"<s>\"", "\"content\": \"a\""), "added_tokens[0]", "id 4", "id 0");
  std::string deep = "\"normalizer\": ";
  for (int i = 0; i < 1000; ++i) deep += R"({"type": "Sequence", "normalizers": [)";
  for (int i = 0; i < 1000; ++i) deep += "]}";
  EXPECT_USER_ERROR(parse("\"normalizer\": null", deep), "nested too deep");
}

TEST(TokenizerErrors, patterns) {
  const auto with = [](const std::string& pattern) { return parse("\\\\s+", pattern); };
  for (const char* good : {"a{2,3}+b", "(?<=a)b", "[^\\\\S\\\\n]+$", "(?i:x|y)(?!z)", "\\\\u00e9\\\\x{1F600}"}) with(good)->cuts("ab", 1);
  EXPECT_USER_ERROR(with("(?<name>a)"), "pretokenizers[0].pattern.Regex", "(?<", "not supported");
  EXPECT_USER_ERROR(with("(?>a)"), "(?>");
  EXPECT_USER_ERROR(with("[a&&b]"), "'&&'");
  EXPECT_USER_ERROR(with("[a[b]]"), "'['");
  EXPECT_USER_ERROR(with("[a"), "without its ']'");
  EXPECT_USER_ERROR(with("(a"), "without its ')'");
  EXPECT_USER_ERROR(with("a)"), "without its '('");
  EXPECT_USER_ERROR(with("*a"), "nothing that can be repeated");
  EXPECT_USER_ERROR(with("\\\\p{Han}"), "'Han'");
  EXPECT_USER_ERROR(with("\\\\h"), "\\h");
  EXPECT_USER_ERROR(with("(a)\\\\1"), "\\1");
  EXPECT_USER_ERROR(with("a{100000}"), "more than 1000");
  EXPECT_USER_ERROR(with("(?:(?:a{1000}){1000}){1000}"), "cannot be compiled");
  EXPECT_USER_ERROR(with(std::string(1000, '(')), "too deep");
  EXPECT_USER_ERROR(with("b-a]["), "[");
  EXPECT_USER_ERROR(with("[b-a]"), "end comes before its begin");
}

TEST(TokenizerErrors, ids_that_are_none) {
  const auto tokenizer = parse();
  const std::vector<std::int32_t> ids{0, 5};
  EXPECT_USER_ERROR(tokenizer->decode(ids, false), "t.json", "id 5", "below 5");
  const std::vector<std::int32_t> negative{-1};
  EXPECT_USER_ERROR(tokenizer->decode(negative, false), "id -1");
}

// Python: bytes.decode("utf-8", "replace").
TEST(Utf8, maximal_invalid_subsequences_become_one_mark_each) {
  const std::string r = "\xEF\xBF\xBD";
  const std::vector<std::pair<std::string, std::string>> cases{
      {"abc", "abc"},
      {"a\x80z", "a" + r + "z"},
      {"\xC3", r},
      {"\xC3(", r + "("},
      {"\xE2\x82", r},
      {"\xE2\x82"
       "A",
       r + "A"},
      {"\xF0\x9F\x98", r},
      {"\xF0\x9F\x98\xF0\x9F\x98\x80", r + "\xF0\x9F\x98\x80"},
      {"\xC0\x80", r + r},
      {"\xED\xA0\x80", r + r + r},
      {"\xF4\x90\x80\x80", r + r + r + r},
      {"\xE0\x80\x80", r + r + r},
      {"\xFE\xFF", r + r},
      {"12345678\xFF"
       "12345678",
       "12345678" + r + "12345678"},
  };
  for (const auto& [in, out] : cases) {
    EXPECT_EQ(repaired_utf8(in), out) << testing::PrintToString(in);
    EXPECT_EQ(valid_utf8_prefix(in) == in.size(), in == out);
  }
}
