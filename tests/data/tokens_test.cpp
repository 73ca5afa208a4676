#include "data/tokens.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "data/scan.h"
#include "support/files.h"

using namespace sheaf;
using sheaf::test::TemporaryFolder;

namespace {

using Ints = std::vector<std::int32_t>;

Ints all_of(const TokenSource& source) {
  Ints out(static_cast<std::size_t>(source.size()));
  source.read(0, out);
  return out;
}
Ints documents_of(const TokenSource& source) {
  Ints out;
  for (std::int64_t d = 0; d <= source.document_count(); ++d) out.push_back(static_cast<std::int32_t>(source.document_begin(d)));
  return out;
}
// Any part read alone is the part of the whole.
void expect_consistent(const TokenSource& source) {
  const Ints all = all_of(source);
  for (std::size_t begin = 0; begin <= all.size(); ++begin)
    for (std::size_t end = begin; end <= all.size(); ++end) {
      Ints part(end - begin, -1);
      source.read(static_cast<std::int64_t>(begin), part);
      ASSERT_TRUE(std::equal(part.begin(), part.end(), all.begin() + static_cast<std::ptrdiff_t>(begin))) << begin << " " << end;
    }
}
TokenOptions bytes(std::int64_t vocab = 256, std::int32_t end_of_text = 0) {
  return {.tokenizer = "bytes", .vocab = vocab, .end_of_text = end_of_text};
}

}    // namespace

TEST(Text, every_byte_is_a_token_and_the_end_of_text_follows) {
  const TemporaryFolder folder;
  const auto source = open_tokens(folder.file("c.txt", "Hi\xff\n"), bytes(256, 7));
  EXPECT_EQ(all_of(*source), (Ints{'H', 'i', 255, '\n', 7}));
  EXPECT_EQ(documents_of(*source), (Ints{0, 5}));
  EXPECT_EQ(source->path(), folder / "c.txt");
  expect_consistent(*source);
}
TEST(Text, an_empty_file_is_one_empty_document) {
  const TemporaryFolder folder;
  const auto source = open_tokens(folder.file("c.txt", ""), bytes());
  EXPECT_EQ(all_of(*source), Ints{0});
  expect_consistent(*source);
}
TEST(Jsonl, every_line_is_a_document_and_escapes_are_decoded) {
  const TemporaryFolder folder;
  const auto source =
      open_tokens(folder.file("c.jsonl", "{\"text\": \"ab\\n\", \"id\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \"\\u00e4\"}"), bytes(256, 3));
  EXPECT_EQ(all_of(*source), (Ints{'a', 'b', '\n', 3, 3, 0xc3, 0xa4, 3}));
  EXPECT_EQ(documents_of(*source), (Ints{0, 4, 5, 8}));
  expect_consistent(*source);
}
TEST(Jsonl, another_field_can_be_named) {
  const TemporaryFolder folder;
  TokenOptions options = bytes();
  options.field = "content";
  EXPECT_EQ(all_of(*open_tokens(folder.file("c.jsonl", R"({"content": "x", "text": "y"})"), options)), (Ints{'x', 0}));
}

TEST(JsonlErrors, a_broken_line_is_named) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", "{\"text\": \"a\"}\n\n{\"text\": \n"), bytes()), folder / "c.jsonl:3:", "not JSON");
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", "{\"text\": \"\xff\"}\n"), bytes()), folder / "c.jsonl:1:", "not JSON");
}
TEST(JsonlErrors, a_line_without_the_field) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", R"({"txt": "a", "id": 1})"), bytes()),
                    "c.jsonl:1: has no field 'text' and no field 'messages'; it has 'txt', 'id'");
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", R"({"text": 3})"), bytes()),
                    "c.jsonl:1: field 'text' is an integer, a string or a list of messages was wanted");
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", "[1]"), bytes()),
                    "c.jsonl:1: is a list, an object with the text in 'text' was wanted");
}
TEST(JsonlErrors, both_fields_or_too_deep) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", R"({"text": "a", "messages": []})"), bytes()),
                    "c.jsonl:1: has both fields 'text' and 'messages'", "data.field");
  const std::string deep = R"({"messages": )" + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", deep), bytes()), "c.jsonl:1: is nested more than 100 levels deep");
}
TEST(TokensErrors, text_without_a_tokenizer) {
  const TemporaryFolder folder;
  const std::string path = folder.file("c.txt", "a");
  EXPECT_USER_ERROR(open_tokens(path, {.vocab = 256}), path, "a model from scratch has no tokenizer", "\"bytes\"");
  EXPECT_USER_ERROR(open_tokens(path, {.model_folder = folder.path(), .vocab = 256}), path, folder.path() + " has no tokenizer.json");
  EXPECT_USER_ERROR(open_tokens(path, {.tokenizer = "bpe", .vocab = 256}), "data.tokenizer 'bpe': no such file");
}
TEST(TokensErrors, a_corpus_without_text) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", "\n \n"), bytes()), "c.jsonl: empty corpus: 0 documents");
  EXPECT_USER_ERROR(open_tokens(folder.file("d.jsonl", "{\"text\": \"\"}\n"), bytes()), "d.jsonl: empty corpus: 1 documents");
}
TEST(TokensErrors, unknown_kinds_and_missing_files) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens("c.parquet", bytes()),
                    "c.parquet: unknown kind of corpus '.parquet'; wanted .txt or .jsonl, plain or with .gz or .zst, a folder of them, or "
                    ".bin with its .idx");
  EXPECT_USER_ERROR(open_tokens("c.idx", bytes()), "c.idx: is an index; name the .bin file");
  for (const auto* name : {"none.txt", "none.jsonl", "none.bin"})
    EXPECT_USER_ERROR(open_tokens(folder / name, bytes()), folder / name + ": cannot be read: No such file");
}
TEST(TokensErrors, ids_outside_the_vocabulary_of_text) {
  const TemporaryFolder folder;
  const std::string text = folder.file("c.txt", "abz"), lines = folder.file("c.jsonl", "{\"text\": \"a\"}\n{\"text\": \"bz\"}");
  EXPECT_EQ(open_tokens(text, bytes('z' + 1))->size(), 4);
  EXPECT_USER_ERROR(open_tokens(text, bytes('z')), text + ": byte 2 is 122, but the model's vocabulary has 122 ids");
  EXPECT_USER_ERROR(open_tokens(lines, bytes('z')), lines + ":2: byte 1 of the text is 122, but the model's vocabulary has 122 ids");
  EXPECT_USER_ERROR(open_tokens(text, bytes(256, 256)), text + ": the end-of-text token 256 follows every document");
}

TEST(Megatron, files_of_another_writer_read_as_they_are) {
  for (const auto* name : {"u16", "i32"}) {
    const auto source = open_tokens(std::string(".cache/oracle/files/") + name + ".bin", {.vocab = 60000});
    ASSERT_EQ(source->size(), 20);
    const Ints ids = all_of(*source);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(ids[static_cast<std::size_t>(i)], i * 7919 % 60000);
    EXPECT_EQ(documents_of(*source), (Ints{0, 9, 9, 20}));    // nothing is added
    expect_consistent(*source);
  }
}
TEST(Megatron, ids_outside_the_vocabulary_are_named) {
  for (const auto* name : {"u16", "i32"}) {
    const std::string path = std::string(".cache/oracle/files/") + name + ".bin";
    EXPECT_EQ(open_tokens(path, {.vocab = 58786})->size(), 20);    // the largest is token 15
    EXPECT_USER_ERROR(open_tokens(path, {.vocab = 58785}), path + ": token 15 is 58785, but the model's vocabulary has 58785 ids");
  }
}

namespace {

template <class T>
std::string raw(const std::vector<T>& values) {
  std::string out(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(out.data(), values.data(), out.size());
  return out;
}

struct Index {
  std::string magic{"MMIDIDX\0\0", 9};
  std::uint64_t version = 1;
  std::uint8_t code = 4;
  std::uint64_t sequences = 2, entries = 2;
  std::vector<std::int32_t> sizes = {2, 1};
  std::vector<std::int64_t> pointers = {0, 8}, documents = {0, 2};

  std::string text() const {
    return magic + raw<std::uint64_t>({version}) + raw<std::uint8_t>({code}) + raw<std::uint64_t>({sequences, entries}) + raw(sizes) +
           raw(pointers) + raw(documents);
  }
};
// What opening 3 int32 tokens with this index says, after the name of the index.
std::string error_of(const std::string& index, const Ints& tokens = {1, 2, 3}) {
  const TemporaryFolder folder;
  const std::string bin = folder.file("c.bin", raw(tokens));
  const std::string idx = folder.file("c.idx", index);
  std::string message = test::user_error_of([&] { open_tokens(bin, {.vocab = 10}); });
  for (const auto& path : {idx, bin})
    if (message.starts_with(path + ": ")) message = message.substr(path.size() + 2);
  if (const auto at = message.find(folder.path() + "/"); at != std::string::npos) message.erase(at, folder.path().size() + 1);
  return message;
}
std::string error_of(const Index& index, const Ints& tokens = {1, 2, 3}) { return error_of(index.text(), tokens); }

}    // namespace

TEST(MegatronErrors, a_sound_index_has_none) {
  EXPECT_EQ(error_of(Index{}), "no error");
  EXPECT_EQ(error_of(Index{.sequences = 0, .entries = 1, .sizes = {}, .pointers = {}, .documents = {0}}, {}), "no error");
}
TEST(MegatronErrors, a_bin_without_its_idx) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.bin", "1234"), {.vocab = 10}), folder / "c.bin: its index " + folder / "c.idx is missing");
}
TEST(MegatronErrors, truncated_anywhere) {
  const std::string whole = Index{}.text();
  for (std::size_t size = 0; size < whole.size(); ++size)
    EXPECT_NE(error_of(whole.substr(0, size)).find("truncated"), std::string::npos) << size << error_of(whole.substr(0, size));
}
TEST(MegatronErrors, wrong_magic) {
  EXPECT_EQ(error_of(Index{.magic = "TNTIDX\0\0\0"}.text() + std::string(9, 'x')), "does not start with MMIDIDX: not a Megatron index");
}
TEST(MegatronErrors, wrong_version) { EXPECT_EQ(error_of(Index{.version = 2}), "has version 2; version 1 is read"); }
TEST(MegatronErrors, other_types_by_name) {
  EXPECT_EQ(error_of(Index{.code = 5}), "its tokens are int64; uint16 and int32 are read");
  EXPECT_EQ(error_of(Index{.code = 1}), "its tokens are uint8; uint16 and int32 are read");
  EXPECT_EQ(error_of(Index{.code = 0}), "its tokens are of the unknown type 0; uint16 and int32 are read");
  EXPECT_EQ(error_of(Index{.code = 9}), "its tokens are of the unknown type 9; uint16 and int32 are read");
}
TEST(MegatronErrors, counts_beyond_the_file) {
  EXPECT_NE(error_of(Index{.sequences = ~std::uint64_t{0}}).find("too few for 18446744073709551615 sequences"), std::string::npos);
  EXPECT_NE(error_of(Index{.entries = std::uint64_t{1} << 61}).find("too few"), std::string::npos);
}
TEST(MegatronErrors, more_than_the_counts_say) {
  EXPECT_EQ(error_of(Index{}.text() + "x"), "has 1 bytes more than 2 sequences and a document index of 2 need");
  EXPECT_EQ(error_of(Index{}.text() + "xx"), "has a mode for every sequence: multimodal files are not read");
}
TEST(MegatronErrors, sizes_beyond_the_bin_and_negative) {
  EXPECT_EQ(error_of(Index{.sizes = {2, 2}}), "sequence 1 ends at byte 16, but c.bin has 12 bytes");
  EXPECT_EQ(error_of(Index{.sizes = {-1, 4}}), "sequence 0 has -1 tokens");
}
TEST(MegatronErrors, a_bin_that_the_index_does_not_cover) {
  EXPECT_EQ(error_of(Index{}, {1, 2, 3, 4}), "describes 3 tokens, 12 bytes, but c.bin has 16 bytes");
}
TEST(MegatronErrors, pointers_that_do_not_follow_one_another) {
  EXPECT_EQ(error_of(Index{.pointers = {0, 4}}), "sequence 1 begins at byte 4, but those before it end at 8");
  EXPECT_EQ(error_of(Index{.pointers = {-8, 0}}), "sequence 0 begins at byte -8, but those before it end at 0");
}
TEST(MegatronErrors, a_document_index_that_does_not_rise_from_0_to_the_end) {
  for (const std::vector<std::int64_t>& documents : {std::vector<std::int64_t>{1, 2}, {0, 1}, {0, 3}, {0, -1}, {-1, 2}})
    EXPECT_NE(error_of(Index{.documents = documents}).find("its document index does not rise from 0 to the 2 sequences"),
              std::string::npos);
  EXPECT_NE(error_of(Index{.entries = 4, .documents = {0, 2, 1, 2}}).find("entry 2 is 1"), std::string::npos);
  EXPECT_EQ(error_of(Index{.entries = 0, .documents = {}}), "its document index is empty; the entry 0 was wanted at least");
}
TEST(MegatronErrors, negative_and_large_ids) {
  EXPECT_EQ(error_of(Index{}, {1, -2, 3}), "token 1 is -2, but the model's vocabulary has 10 ids");
  EXPECT_EQ(error_of(Index{}, {1, 2, 10}), "token 2 is 10, but the model's vocabulary has 10 ids");
}

TEST(Scan, finds_the_first_bad_id_wherever_it_is) {
  for (const std::size_t size : {1u, 100u, 16384u, 16385u, 50000u})
    for (const std::size_t at : {std::size_t{0}, size / 2, size - 1}) {
      std::vector<std::uint16_t> narrow(size, 5);
      std::vector<std::int32_t> wide(size, 5);
      EXPECT_EQ(first_not_below(std::span<const std::uint16_t>(narrow), 6), -1);
      EXPECT_EQ(first_not_below(std::span<const std::int32_t>(wide), 6), -1);
      narrow[at] = 6, narrow.back() = 9, wide[at] = -1, wide.back() = -5;
      EXPECT_EQ(first_not_below(std::span<const std::uint16_t>(narrow), 6), static_cast<std::int64_t>(at));
      EXPECT_EQ(first_not_below(std::span<const std::int32_t>(wide), 6), static_cast<std::int64_t>(at));
      EXPECT_EQ(first_not_below(std::span<const std::uint16_t>(narrow), 65536), -1);
    }
}
