// A document in parts, in chunks and from many threads gives the ids of the document in one piece.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <thread>

#include "data/tokenizer/tokenizer.h"
#include "tokenizer/cases.h"

using namespace sheaf;

namespace {

using Ids = std::vector<std::int32_t>;

// Texts of the cases in random order, some lines of them broken UTF-8, until there are `bytes`.
std::string document(const std::string& name, std::size_t bytes, unsigned seed) {
  std::vector<std::string> texts;
  for (test::CaseReader cases(test::tokenizer_folder() + "/" + name + "/cases"); !cases.done();) {
    texts.push_back(cases.text());
    cases.ids(), cases.ids(), cases.text(), cases.text();
  }
  std::mt19937 random(seed);
  std::string out;
  while (out.size() < bytes) {
    out += texts[random() % texts.size()];
    if (random() % 3 == 0) out += random() % 2 ? "\n" : " and then ";
    if (random() % 40 == 0) out += static_cast<char>(0x80 + random() % 0x80);
  }
  return out;
}

// Cut nowhere or seldom: a normaliser that may change text across any place, a pattern that looks back, words whose ends are marked, a
// space before every piece, matches that join what is before.
const std::set<std::string> kWhole{"clip", "subwords", "digits", "empty_matches", "starcoder", "merged_with_previous", "previous_inverted"};

}    // namespace

TEST(TokenizerParts, cuts_change_no_id) {
  for (const std::string& name : test::tokenizer_names()) {
    const auto tokenizer = Tokenizer::read(test::tokenizer_folder() + "/" + name + "/tokenizer.json");
    const std::string text = document(name, 40'000, 3);
    Ids whole;
    tokenizer->encode(text, whole);
    for (const std::size_t part : {40u, 700u, 5000u}) {
      const auto ends = tokenizer->cuts(text, part);
      ASSERT_EQ(ends.back(), text.size());
      if (!kWhole.contains(name)) {
        EXPECT_GT(ends.size(), part == 40 ? 100u : part == 700 ? 20u : 3u) << name << " " << part;
      }
      Ids ids;
      std::size_t begin = 0;
      for (const std::size_t end : ends) {
        tokenizer->encode_part(text, begin, end, ids);
        begin = end;
      }
      if (ids != whole) {    // where: for who mends it
        const auto at = static_cast<std::size_t>(std::mismatch(ids.begin(), ids.end(), whole.begin(), whole.end()).first - ids.begin());
        const auto near = [&](const Ids& all) { return tokenizer->decode(std::span(all).subspan(at < 3 ? 0 : at - 3, 8), false); };
        FAIL() << name << ", parts of " << part << " bytes: " << testing::PrintToString(near(ids)) << "\nwanted "
               << testing::PrintToString(near(whole));
      }
    }
  }
}

TEST(TokenizerParts, chunks_of_any_size_change_no_id_and_little_is_kept) {
  for (const std::string& name : test::tokenizer_names()) {
    const auto tokenizer = Tokenizer::read(test::tokenizer_folder() + "/" + name + "/tokenizer.json");
    const std::string text = document(name, 500'000, 5);
    Ids whole;
    tokenizer->encode(text, whole);
    for (const std::size_t chunk : {3001u, 150'000u}) {
      StreamEncoder stream(*tokenizer);
      Ids ids;
      std::size_t most = 0;
      for (int documents = 0; documents < 2; ++documents) {    // one after the other through one encoder
        ids.clear();
        for (std::size_t at = 0; at < text.size(); at += chunk) {
          stream.push(std::string_view(text).substr(at, chunk), ids);
          most = std::max(most, stream.buffered_bytes());
        }
        stream.finish(ids);
        ASSERT_TRUE(ids == whole) << name << ", chunks of " << chunk << " bytes";
      }
      if (!kWhole.contains(name)) {
        EXPECT_LE(most, 2 * chunk + (600u << 10)) << name;
      }
    }
  }
}

TEST(TokenizerParts, a_stream_of_single_bytes) {
  const auto tokenizer = Tokenizer::read(test::tokenizer_folder() + "/qwen2/tokenizer.json");
  const std::string text = document("qwen2", 600'000, 7);
  Ids whole, ids;
  tokenizer->encode(text, whole);
  StreamEncoder stream(*tokenizer);
  for (const char& byte : text) stream.push({&byte, 1}, ids);
  EXPECT_LT(stream.buffered_bytes(), 300'000u);
  stream.finish(ids);
  EXPECT_TRUE(ids == whole);
}

TEST(TokenizerParts, threads_share_a_tokenizer) {
  const auto tokenizer = Tokenizer::read(test::tokenizer_folder() + "/llama3/tokenizer.json");
  const std::string text = document("llama3", 100'000, 9);
  Ids whole;
  tokenizer->encode(text, whole);
  std::vector<Ids> results(4);
  std::vector<std::thread> threads;
  for (Ids& ids : results) threads.emplace_back([&] { tokenizer->encode(text, ids); });
  for (auto& thread : threads) thread.join();
  for (const Ids& ids : results) EXPECT_TRUE(ids == whole);
}

// O(n log n): a word of 2 MB, which O(n^2) would not finish.
TEST(TokenizerParts, long_words_take_no_quadratic_time) {
  for (const std::string name : {"gpt2", "llama2"}) {
    const auto tokenizer = Tokenizer::read(test::tokenizer_folder() + "/" + name + "/tokenizer.json");
    std::string text;
    while (text.size() < 2'000'000) text += "theinationofstringsare";
    Ids ids;
    tokenizer->encode(text, ids);
    EXPECT_EQ(tokenizer->decode(ids, false), text) << name;
  }
}
