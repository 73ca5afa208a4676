#pragma once
// The parts of a tokenizer, as tokenizer_reader.cpp makes them and tokenizer.cpp runs them.
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer.h"

namespace sheaf {

struct Tokenizer::Impl {
  // What post-processing gives for one sequence: ids, and the sequence in place of nullopt.
  using Template = std::vector<std::optional<std::int32_t>>;

  struct Workspace {
    Bpe::Workspace bpe;
    std::string normalized, prepared;
  };
  // A workspace of the pool, taken for one call: a thread that comes again finds a warm cache.
  class Lease {
   public:
    explicit Lease(const Impl& impl);
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease();
    Workspace& operator*() const { return *workspace_; }

   private:
    const Impl& impl_;
    std::unique_ptr<Workspace> workspace_;
  };

  std::string path, hash;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<Bpe> bpe;
  // What an added token decodes to, and whether skip_special leaves it out. As the library has it: a normalized token decodes to its
  // normalised content, and is left out only if that is the content of a special token.
  struct DecodedToken {
    std::string text;
    bool special;
  };
  std::unordered_map<std::int32_t, DecodedToken> added;
  std::unordered_map<std::string, std::int32_t> added_ids;
  TokenMatcher raw_tokens, normalized_tokens;
  std::vector<Template> templates;    // one after the other
  Decoder decoder;
  std::int64_t vocab_size = 0;

  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Workspace>> idle;    // at most as many as calls ran at once

  // Bytes on both sides of a cut that decide whether it is one, and that a part sees of the text after it.
  std::size_t window() const { return 512 + 4 * std::max(raw_tokens.longest(), normalized_tokens.longest()); }
  // The ids of text[0, end) depend on nothing after text[0, end + window()], those of text[end, ..) on nothing before.
  bool is_cut(std::string_view text, std::size_t end) const;
  // Ids of text[0, end); what follows is seen and not encoded. `continues`: the text goes on from a cut.
  void encode(std::string_view text, std::size_t end, bool continues, std::vector<std::int32_t>& ids) const;
  void encode_segment(std::string_view text, std::size_t end, bool is_start, bool at_text_start, Workspace& w,
                      std::vector<std::int32_t>& ids) const;
  void encode_words(std::string_view text, std::size_t end, bool is_start, bool at_text_start, Workspace& w,
                    std::vector<std::int32_t>& ids) const;
};

}    // namespace sheaf
