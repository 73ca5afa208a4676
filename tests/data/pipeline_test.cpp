// The text pipeline with bytes as tokens: readers, order over threads, compressed input, the Megatron writer, the cache.
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include <chrono>
#include <thread>

#include "base/json.h"
#include "base/ordered_workers.h"
#include "data/byte_stream.h"
#include "data/megatron.h"
#include "data/megatron_writer.h"
#include "data/rows.h"
#include "data/token_memory.h"
#include "data/tokenize.h"
#include "support/files.h"

using namespace sheaf;
using sheaf::test::TemporaryFolder;

namespace {

namespace fs = std::filesystem;
using Ints = std::vector<std::int32_t>;
const std::atomic<bool> kGoOn = false;

std::string gzip(const std::string& text) {
  z_stream state{};
  EXPECT_EQ(deflateInit2(&state, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&state, text.size()) + 64, '\0');
  state.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data())), state.avail_in = static_cast<uInt>(text.size());
  state.next_out = reinterpret_cast<Bytef*>(out.data()), state.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&state, Z_FINISH), Z_STREAM_END);
  out.resize(state.total_out);
  deflateEnd(&state);
  return out;
}
std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}
std::string all_of(ByteStream& stream) {
  std::string out;
  for (auto block = stream.next(); !block.empty(); block = stream.next()) out += block;
  return out;
}
Ints all_of(const TokenSource& source) {
  Ints out(static_cast<std::size_t>(source.size()));
  source.read(0, out);
  return out;
}
std::string noise(std::size_t size) {
  std::string text;
  std::uint64_t state = 1;
  while (text.size() < size) text += "abcdefgh \n"[(state = state * 6364136223846793005u + 1) >> 33 & 7];
  return text;
}
TokenOptions bytes(const std::string& cache = "") { return {.tokenizer = "bytes", .vocab = 256, .end_of_text = 0, .cache = cache}; }
TextOptions text_options(const Encoder& encoder, int threads) {
  return {.encoder = &encoder, .vocab = 256, .end_of_text = 7, .threads = threads};
}
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}    // namespace

TEST(OrderedWorkers, give_back_in_order_and_throw_where_it_happened) {
  OrderedWorkers<int, int> workers(3, [](int i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(i % 3));
    if (i == 7) throw std::runtime_error("seven");
    return i * i;
  });
  for (int i = 0; i < 10; ++i) workers.push(i);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(workers.pop(), i * i);
  EXPECT_THROW(workers.pop(), std::runtime_error);
  EXPECT_EQ(workers.pop(), 64);
}

TEST(ByteStream, reads_plain_gzip_and_zstd_alike) {
  const TemporaryFolder folder;
  const std::string text = noise(3'000'000);
  for (const auto& [name, raw] : {std::pair<std::string, std::string>{"a.txt", text},
                                  {"a.txt.gz", gzip(text)},
                                  {"b.txt.gz", gzip(text.substr(0, 1000)) + gzip("") + gzip(text.substr(1000))},
                                  {"a.txt.zst", zstd(text)},
                                  {"b.txt.zst", zstd(text.substr(0, 1000)) + zstd(text.substr(1000))}}) {
    const auto stream = open_byte_stream(folder.file(name, raw));
    EXPECT_TRUE(all_of(*stream) == text) << name;
    EXPECT_EQ(stream->consumed(), std::ssize(raw));
    EXPECT_EQ(stream->size(), std::ssize(raw));
  }
}
TEST(ByteStream, a_file_cut_anywhere_is_truncated_and_the_place_is_said) {
  const TemporaryFolder folder;
  const std::string text = noise(5000);
  for (const auto& [name, whole] : {std::pair{"c.gz", gzip(text)}, std::pair{"c.zst", zstd(text)}})
    for (std::size_t size = 0; size < whole.size(); size += size < 40 || size + 40 > whole.size() ? 1 : 97) {
      const std::string path = folder.file(name, whole.substr(0, size));
      EXPECT_USER_ERROR(all_of(*open_byte_stream(path)), path, fmt::format("ends at byte {}", size), "truncated");
    }
}
TEST(ByteStream, damage_is_found_and_the_place_is_said) {
  const TemporaryFolder folder;
  for (const auto& [name, whole] : {std::pair{"c.gz", gzip(noise(5000))}, std::pair{"c.zst", zstd(noise(5000))}}) {
    EXPECT_USER_ERROR(all_of(*open_byte_stream(folder.file(name, whole + "garbage"))), name, "is damaged at byte");
    EXPECT_USER_ERROR(all_of(*open_byte_stream(folder.file(name, "plain text"))), name, "is damaged at byte");
  }
  std::string raw = gzip(noise(5000));
  raw[raw.size() - 6] ^= 1;    // of the checksum
  EXPECT_USER_ERROR(all_of(*open_byte_stream(folder.file("d.gz", raw))), "is damaged at byte", "incorrect data check");
}

TEST(Tokenize, threads_and_compression_change_nothing) {
  const TemporaryFolder folder;
  const auto encoder = Encoder::bytes();
  std::string lines;
  Ints wanted;
  std::int64_t documents = 0;
  for (std::size_t i = 0; i < 4000; ++i) {
    const std::string text = noise(i % 7 == 0 ? 3 * i : i % 50);
    lines += Json{{"text", text}}.dump() + (i % 5 == 0 ? "\r\n\n" : "\n");
    for (const char c : text) wanted.push_back(c);
    wanted.push_back(7), ++documents;
  }
  for (const auto& [name, raw] : {std::pair{"c.jsonl", lines}, {"c.jsonl.gz", gzip(lines)}, {"c.jsonl.zst", zstd(lines)}})
    for (const int threads : {1, 4}) {
      TokenMemory memory("m");
      const std::string path = folder.file(name, raw);
      const TextProgress done = tokenize_text(path, text_options(*encoder, threads), memory, kGoOn);
      EXPECT_TRUE(all_of(memory) == wanted) << name;
      EXPECT_EQ(done.documents, documents);
      EXPECT_EQ(done.tokens, std::ssize(wanted));
      EXPECT_EQ(done.bytes, done.all_bytes);
    }
}
TEST(Tokenize, a_line_longer_than_a_piece_and_a_last_one_without_an_end) {
  const TemporaryFolder folder;
  const auto encoder = Encoder::bytes();
  const std::string long_text(3'000'000, 'x');
  TokenMemory memory("m");
  const std::string path = folder.file("c.jsonl", R"({"text":"a"})"
                                                  "\n" +
                                                      Json{{"text", long_text}}.dump() +
                                                      "\n"
                                                      R"({"text":"b"})");
  EXPECT_EQ(tokenize_text(path, text_options(*encoder, 2), memory, kGoOn).documents, 3);
  EXPECT_EQ(memory.document_begin(2), 2 + 3'000'001);
  EXPECT_EQ(memory.size(), 2 + 3'000'001 + 2);
}
TEST(Tokenize, the_line_of_an_error_is_right_in_a_later_piece) {
  const TemporaryFolder folder;
  const auto encoder = Encoder::bytes();
  std::string lines;
  for (int i = 0; i < 99'999; ++i) lines += "{\"text\": \"12345678\"}\n";
  TokenMemory memory("m");
  const std::string path = folder.file("c.jsonl", lines + "{\"text\"\n" + lines);
  EXPECT_USER_ERROR(tokenize_text(path, text_options(*encoder, 3), memory, kGoOn), path + ":100000:", "not JSON");
}
TEST(Tokenize, a_folder_is_its_files_by_name) {
  const TemporaryFolder folder;
  folder.file("texts/b/2.txt.gz", gzip("two"));
  folder.file("texts/a.txt", "one");
  folder.file("texts/c.jsonl", "{\"text\": \"three\"}\n{\"text\": \"four\"}\n");
  folder.file("texts/d.txt", "");
  folder.file("texts/notes.pdf", "no text");
  folder.file("texts/.git/x.txt", "hidden");
  const std::string texts = folder / "texts", cache = folder / "cache";
  const auto tokens = open_tokens(texts, bytes());
  const std::string all("one\0two\0three\0four\0", 19);
  EXPECT_EQ(all_of(*tokens), Ints(all.begin(), all.end()));
  EXPECT_EQ(tokens->document_count(), 4);
  fs::create_directories(folder / "none");
  EXPECT_USER_ERROR(open_tokens(folder / "none", bytes()), "no text in this folder");
  // The cache knows which byte belongs to which file.
  open_tokens(texts, bytes(cache));
  folder.file("texts/a.txt", "onet"), folder.file("texts/b/2.txt.gz", gzip("wo"));
  EXPECT_EQ(open_tokens(texts, bytes(cache))->document_begin(1), 5);
}
TEST(Tokenize, stops_when_asked) {
  const TemporaryFolder folder;
  const auto encoder = Encoder::bytes();
  TokenMemory memory("m");
  std::atomic<bool> stop = false;
  const std::string path = folder.file("c.txt", noise(5'000'000));
  EXPECT_THROW(tokenize_text(path, text_options(*encoder, 2), memory, stop, [&](const TextProgress&) { stop = true; }), Interrupted);
}

TEST(MegatronWriter, what_it_writes_is_read_back) {
  const TemporaryFolder folder;
  for (const std::int64_t vocab : {65499, 65500}) {
    const std::string prefix = folder / fmt::format("sub{}/c", vocab);
    MegatronWriter writer(prefix, vocab);
    writer.append(Ints{1, 2, 3});
    writer.append(Ints{65498});
    writer.end_document();
    writer.end_document();
    writer.append(Ints{5, 6});
    writer.end_document();
    EXPECT_FALSE(fs::exists(prefix + ".idx"));
    writer.finish();
    EXPECT_EQ(fs::file_size(prefix + ".bin"), vocab < 65500 ? 12u : 24u);
    const MegatronSource source(prefix + ".bin", vocab);
    EXPECT_EQ(all_of(source), (Ints{1, 2, 3, 65498, 5, 6}));
    EXPECT_EQ(source.document_count(), 3);
    EXPECT_EQ(source.document_begin(2), 4);
    EXPECT_FALSE(source.masked());
  }
  EXPECT_EQ(names_in(folder / "sub65499"), (std::vector<std::string>{"c.bin", "c.idx"}));
}
TEST(MegatronWriter, leaves_nothing_behind_when_it_is_not_finished) {
  const TemporaryFolder folder;
  {
    MegatronWriter writer(folder / "c", 10);
    writer.append(Ints{1, 2, 3});
    EXPECT_USER_ERROR(MegatronWriter(folder / "c", 10), folder / "c: another process is writing it");
  }
  EXPECT_EQ(names_in(folder.path()), std::vector<std::string>{});
}
TEST(MegatronWriter, a_mask_is_written_where_a_token_does_not_count_and_goes_with_the_file) {
  const TemporaryFolder folder;
  {
    MegatronWriter writer(folder / "c", 100);
    writer.append(Ints{1, 2, 3});
    writer.end_document();
    writer.append(Ints{4, 5, 6, 7, 8, 9, 10, 11}, std::vector<std::uint8_t>{0, 1, 0, 0, 1, 1, 0, 0});
    writer.append(Ints{12});
    writer.end_document();
    writer.finish();
  }
  EXPECT_EQ(read_file(folder / "c.mask"), std::string("\x97\x09", 2));    // 11101001 1001, the lowest bit first
  const MegatronSource source(folder / "c.bin", 100);
  ASSERT_TRUE(source.masked());
  std::string marks;
  for (std::int64_t i = 0; i < source.size(); ++i) marks += source.counts(i) ? '1' : '0';
  EXPECT_EQ(marks, "111010011001");
  {
    MegatronWriter writer(folder / "c", 100);
    writer.append(Ints{1});
    writer.end_document();
    writer.finish();
  }
  EXPECT_EQ(names_in(folder.path()), (std::vector<std::string>{"c.bin", "c.idx"}));
  std::ofstream(folder / "c.mask") << "too long";
  EXPECT_USER_ERROR(MegatronSource(folder / "c.bin", 100), folder / "c.mask: has 8 bytes", "is 1; it belongs to another file");
}
TEST(MegatronWriter, errors_of_the_system_name_the_path) {
  EXPECT_USER_ERROR(MegatronWriter("/proc/none/c", 10), "/proc/none: cannot be made");
  const TemporaryFolder folder;
  const std::string file = folder.file("file", "");
  EXPECT_USER_ERROR(MegatronWriter(file + "/c", 10), file);
}

TEST(Cache, tokens_are_made_once_and_again_when_anything_changes) {
  const TemporaryFolder folder;
  const std::string path = folder.file("c.jsonl", R"({"text": "ab", "other": "c"})");
  std::vector<std::string> said;
  TokenOptions options = bytes(folder / "cache");
  options.say = [&](const std::string& line) { said.push_back(line); };
  const auto lines_of = [&](const std::string& file) {
    said.clear();
    return all_of(*open_tokens(file, options));
  };
  EXPECT_EQ(lines_of(path), (Ints{'a', 'b', 0}));
  EXPECT_NE(said.at(0).find("tokenizing into"), std::string::npos);
  EXPECT_EQ(names_in(folder / "cache").size(), 2u);
  EXPECT_EQ(lines_of(path), (Ints{'a', 'b', 0}));
  EXPECT_EQ(said.size(), 1u);
  EXPECT_NE(said.at(0).find("made before"), std::string::npos);
  // The same bytes under another name are the same.
  EXPECT_EQ(lines_of(folder.file("d.jsonl", R"({"text": "ab", "other": "c"})")), (Ints{'a', 'b', 0}));
  EXPECT_EQ(names_in(folder / "cache").size(), 2u);
  options.field = "other";
  EXPECT_EQ(lines_of(path), (Ints{'c', 0}));
  options.end_of_text = 9;
  EXPECT_EQ(lines_of(path), (Ints{'c', 9}));
  EXPECT_EQ(lines_of(folder.file("c.jsonl", R"({"text": "ab", "other": "d"})")), (Ints{'d', 9}));
  EXPECT_EQ(names_in(folder / "cache").size(), 8u);
  // Errors name the user's file, not ours.
  EXPECT_USER_ERROR(Rows(*open_tokens(path, options), 100, Packing::concat), path + ": corpus shorter than one row");
}
TEST(Cache, runs_at_the_same_time_make_it_once) {
  const TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 20'000; ++i) lines += "{\"text\": \"some text of a line\"}\n";
  const std::string path = folder.file("c.jsonl", lines);
  std::atomic<int> made = 0;
  std::vector<std::thread> runs;
  for (int i = 0; i < 4; ++i)
    runs.emplace_back([&] {
      TokenOptions options = bytes(folder / "cache");
      options.say = [&](const std::string& line) { made += line.find("tokenizing into") != std::string::npos; };
      EXPECT_EQ(open_tokens(path, options)->document_count(), 20'000);
    });
  for (std::thread& run : runs) run.join();
  EXPECT_EQ(made, 1);
  EXPECT_EQ(names_in(folder / "cache").size(), 2u);
}
TEST(Cache, a_file_that_is_wrong_leaves_nothing_behind) {
  const TemporaryFolder folder;
  EXPECT_USER_ERROR(open_tokens(folder.file("c.jsonl", "{"), bytes(folder / "cache")), "c.jsonl:1:");
  EXPECT_EQ(names_in(folder / "cache"), std::vector<std::string>{});
}
TEST(Cache, compressed_text_as_bytes_is_what_plain_text_is) {
  const TemporaryFolder folder;
  const std::string text = noise(1'000'000);
  const Ints plain = all_of(*open_tokens(folder.file("c.txt", text), bytes()));
  EXPECT_TRUE(all_of(*open_tokens(folder.file("c.txt.gz", gzip(text)), bytes(folder / "cache"))) == plain);
  EXPECT_TRUE(all_of(*open_tokens(folder.file("c.txt.zst", zstd(text)), bytes())) == plain);
}

TEST(MaskedRows, labels_of_tokens_that_do_not_count_are_ignored) {
  TokenMemory memory("m.jsonl");
  memory.append(Ints{10, 11, 12}, std::vector<std::uint8_t>{0, 0, 1});
  memory.end_document();
  memory.append(Ints{20, 21, 22, 23});
  memory.end_document();
  const Rows concat(memory, 3, Packing::concat), documents(memory, 5, Packing::documents);
  Ints labels(3);
  concat.fill(0, {.labels = labels.data()});
  EXPECT_EQ(labels, (Ints{kIgnoredLabel, 12, 20}));
  EXPECT_EQ(concat.predictions(), 5);
  Ints packed(5);
  documents.fill(0, {.labels = packed.data()});
  EXPECT_EQ(packed, (Ints{kIgnoredLabel, 12, 21, 22, 23}));
  EXPECT_EQ(documents.predictions(), 4);
  TokenMemory none("n.jsonl");
  none.append(Ints{10, 11, 12}, std::vector<std::uint8_t>{1, 0, 0});
  none.end_document();
  EXPECT_USER_ERROR(Rows(none, 2, Packing::concat), "n.jsonl: no token of it counts for the loss");
}
