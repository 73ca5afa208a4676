#pragma once
// Byte pair encoding: the merge of the lowest rank first, the leftmost of equals.
#include <array>
#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "data/tokenizer/word_cache.h"

namespace sheaf {

// The section `model` of tokenizer.json.
struct BpeOptions {
  std::vector<std::pair<std::string, std::int32_t>> vocab;    // tokens and ids, each id once
  std::vector<std::array<std::string, 2>> merges;             // by rank
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix, end_of_word_suffix;
  bool fuse_unk = false, byte_fallback = false, ignore_merges = false;
  bool byte_level = false;    // words are bytes, which the vocabulary spells in the byte-level alphabet
};

// The 256 characters that spell bytes in byte-level vocabularies: the byte's own where it is printable, else one from U+0100.
char32_t byte_level_char(std::uint8_t byte);
std::optional<std::uint8_t> byte_of_level_char(char32_t c);

class Bpe {
 public:
  struct Candidate {
    std::uint64_t merge;      // rank, new id
    std::int32_t position;    // of the left symbol
  };
  // What a thread needs while it encodes.
  struct Workspace {
    WordCache cache;
    std::vector<std::int32_t> symbols;           // of a word, before and after its merges
    std::vector<std::uint64_t> merges;           // of a short word: merge of symbol i with its right neighbour
    std::vector<std::int32_t> next, previous;    // of a long word: neighbours of a symbol
    std::vector<Candidate> heap;                 // of a long word
  };

  Bpe(BpeOptions options, const std::string& where);    // throws UserError, beginning with `where`

  // Ids of a word (a piece that the pre-tokenizer gave), appended.
  void encode(std::string_view word, Workspace& workspace, std::vector<std::int32_t>& ids) const;

  // Any text with `a` followed by `b` encodes as the part that ends with `a`, then the part that begins with `b`: no merge crosses.
  bool separates(char32_t a, char32_t b) const;

  std::optional<std::int32_t> id(std::string_view token) const;
  const std::string* token(std::int32_t id) const;    // nullptr: no such id
  std::int64_t id_end() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t token_count() const { return static_cast<std::int64_t>(vocab_.size()); }

 private:
  struct TextHash {
    using is_transparent = void;
    std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  using Vocab = std::unordered_map<std::string, std::int32_t, TextHash, std::equal_to<>>;
  struct Merge {
    std::uint64_t pair = kNoPair;    // left id, right id
    std::uint64_t result = kNone;    // rank, new id
  };
  static constexpr std::uint64_t kNoPair = ~std::uint64_t{0}, kNone = ~std::uint64_t{0};

  void add_merges(const BpeOptions& options, const std::string& where);
  std::uint64_t merge_of(std::int32_t left, std::int32_t right) const {
    const std::uint64_t pair = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    for (std::size_t at = (pair * 0x9E3779B97F4A7C15u) >> merge_shift_;; at = (at + 1) & (merges_.size() - 1)) {
      if (merges_[at].pair == pair) return merges_[at].result;
      if (merges_[at].pair == kNoPair) return kNone;
    }
  }
  // A hash of all pairs (last symbol of a left side, first of a right side) of merges: sometimes true for another pair, never false for
  // one.
  static std::size_t join_slot(std::int32_t left, std::int32_t right) {
    const std::uint64_t pair = static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
    return (pair * 0x9E3779B97F4A7C15u) >> 44;
  }
  bool may_join(std::int32_t left, std::int32_t right) const { return joins_[join_slot(left, right)]; }

  // How a character becomes symbols: itself a token, the tokens of its bytes, or neither.
  enum class Spelling : std::uint8_t { token, bytes, unknown };
  struct Symbols {
    Spelling spelling = Spelling::unknown;
    std::vector<std::int32_t> ids;
  };
  Symbols spell(std::string_view spelled) const;
  bool append_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const;    // false: some character is unknown
  void encode_run(std::string_view run, Workspace& workspace, std::vector<std::int32_t>& ids) const;
  void merge_short(Workspace& workspace) const;
  void merge_long(Workspace& workspace) const;

  Vocab vocab_;
  std::vector<std::string> tokens_;    // by id; what has no token is in no_token_
  std::unordered_set<std::int32_t> no_token_;
  Vocab whole_;                  // ignore_merges: words that are one token, as the words come
  std::vector<Merge> merges_;    // open addressing; a power of two, at most half full
  int merge_shift_ = 0;
  std::vector<bool> joins_;
  std::array<Symbols, 256> byte_symbols_;       // byte-level: of each byte; else: of ASCII
  std::vector<std::int32_t> char_tokens_;       // not byte-level: token of a character below U+10000; -1: none
  std::array<std::int32_t, 256> fallback_{};    // ids of <0x00> .. <0xFF>; -1: not there
  std::optional<std::int32_t> unk_;
  std::string prefix_, suffix_;
  bool fuse_unk_, byte_fallback_, ignore_merges_, byte_level_;
};

}    // namespace sheaf
