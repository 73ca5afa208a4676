#include "data/tokens.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "base/error.h"
#include "base/file_lock.h"
#include "base/mapped_file.h"
#include "base/text.h"
#include "data/byte_stream.h"
#include "data/megatron.h"
#include "data/megatron_writer.h"
#include "data/text_source.h"
#include "data/text_tokenizer.h"
#include "data/token_memory.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

const std::atomic<bool> kNever = false;

// XXH3, 128 bit, of the bytes of the files and of what they are turned into tokens by: 32 hexadecimal digits.
std::string content_hash(const std::string& path, const std::string& identity, const std::atomic<bool>& stop) {
  const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> state(XXH3_createState(), &XXH3_freeState);
  SHEAF_CHECK(state, "no memory for a hash");
  XXH3_128bits_reset(state.get());
  const auto add = [&](std::string_view text) { XXH3_128bits_update(state.get(), text.data(), text.size()); };
  add(identity);
  constexpr std::size_t kBlock = std::size_t{1} << 24;
  for (const std::string& name : text_files(path)) {
    MappedFile file(name);
    // What parts the files of a folder; a file alone has the same tokens wherever it lies.
    if (name != path) add(fmt::format("|{}|{}|", name.substr(path.size()), file.bytes().size()));
    for (std::size_t begin = 0; begin < file.bytes().size(); begin += kBlock) {
      if (stop.load()) throw Interrupted();
      const auto block = file.bytes().subspan(begin, std::min(kBlock, file.bytes().size() - begin));
      XXH3_128bits_update(state.get(), block.data(), block.size());
      file.forget(begin + block.size());
    }
  }
  const XXH128_hash_t hash = XXH3_128bits_digest(state.get());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

void write_tokens(const std::string& path, const std::string& prefix, FileLock lock, const TokenOptions& options, const TextOptions& text,
                  const std::atomic<bool>& stop) {
  MegatronWriter writer(prefix, options.vocab, std::move(lock));
  tokenize_text(path, text, writer, stop, options.report);
  writer.finish();
}

std::unique_ptr<TokenSource> open_cached(const std::string& path, const TokenOptions& options, const TextTokenizer& tokenizer,
                                         const std::atomic<bool>& stop) {
  const auto say = [&](const std::string& line) {
    if (options.say) options.say(line);
  };
  const std::string prefix = fs::path(options.cache) / content_hash(path, tokenizer.identity(), stop);
  std::error_code error;
  fs::create_directories(options.cache, error);
  if (error) user_error("{}: cannot be made: {}; the tokens of {} go there", options.cache, error.message(), path);
  bool waited = false, written = false;
  while (!fs::exists(prefix + ".idx", error)) {
    if (stop.load()) throw Interrupted();
    if (auto lock = FileLock::try_lock(MegatronWriter::lock_path(prefix))) {
      if (fs::exists(prefix + ".idx", error)) continue;    // finished by the last holder of the lock
      say(fmt::format("{}: tokenizing into {}", path, prefix + ".bin"));
      write_tokens(path, prefix, std::move(*lock), options, tokenizer.options(), stop);
      written = true;
      continue;
    }
    if (!waited) say(fmt::format("{}: another run is tokenizing it, waiting", path));
    waited = true;
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!written) say(fmt::format("{}: tokens of {}, made before", path, prefix + ".bin"));
  return std::make_unique<MegatronSource>(prefix + ".bin", options.vocab, path);
}

}    // namespace

std::unique_ptr<TokenSource> open_tokens(const std::string& path, const TokenOptions& options) {
  const std::string ending = fs::path(path).extension();
  if (ending == ".bin") return std::make_unique<MegatronSource>(path, options.vocab);
  if (ending == ".idx") user_error("{}: is an index; name the .bin file beside it", path);
  if (!is_text(path))
    user_error("{}: unknown kind of corpus {}; wanted .txt or .jsonl, plain or with .gz or .zst, a folder of them, or .bin with its .idx",
               path, quote(ending));

  const std::atomic<bool>& stop = options.stop ? *options.stop : kNever;
  const bool folder = fs::is_directory(path);
  if (!folder) MappedFile{path};    // to say first what is plainest: no such file
  const TextTokenizer tokenizer(options, path);
  if (options.tokenizer == "bytes" && ending == ".txt" && !folder)
    return std::make_unique<TextSource>(path, options.vocab, tokenizer.options().end_of_text);
  if (!options.cache.empty()) return open_cached(path, options, tokenizer, stop);
  auto memory = std::make_unique<TokenMemory>(path);
  tokenize_text(path, tokenizer.options(), *memory, stop, options.report);
  return memory;
}

}    // namespace sheaf
