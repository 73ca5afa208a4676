#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr std::int32_t kNothing = -1;       // no id
constexpr std::size_t kShortWord = 48;      // symbols up to which looking at each is faster than a heap
constexpr std::int32_t kMaxId = 1 << 26;    // more than any tokenizer has: an id must not make us allocate without bound

std::uint64_t pair_key(std::int32_t a, std::int32_t b) {
  return static_cast<std::uint64_t>(static_cast<std::uint32_t>(a)) << 32 | static_cast<std::uint32_t>(b);
}
std::int32_t id_of(std::uint64_t merge) { return static_cast<std::int32_t>(merge & 0xFFFFFFFFu); }

// The bytes that a token of a byte-level vocabulary spells; nullopt: it has other characters.
std::optional<std::string> spelled_bytes(std::string_view token) {
  std::string out;
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Char c = utf8_at(token, at);
    const auto byte = byte_of_level_char(c.code);
    if (!byte) return std::nullopt;
    out += static_cast<char>(*byte);
    at += c.size;
  }
  return out;
}

std::array<char32_t, 256> level_chars() {
  std::array<char32_t, 256> chars{};
  char32_t next = 0x100;
  for (char32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
    chars[b] = printable ? b : next++;
  }
  return chars;
}
const std::array<char32_t, 256> kLevelChars = level_chars();

}    // namespace

char32_t byte_level_char(std::uint8_t byte) { return kLevelChars[byte]; }
std::optional<std::uint8_t> byte_of_level_char(char32_t c) {
  if (c >= 0x144) return std::nullopt;
  if (c < 256) return kLevelChars[c] == c ? std::optional(static_cast<std::uint8_t>(c)) : std::nullopt;
  return static_cast<std::uint8_t>(std::find(kLevelChars.begin(), kLevelChars.end(), c) - kLevelChars.begin());
}

Bpe::Bpe(BpeOptions options, const std::string& where)
    : prefix_(options.continuing_subword_prefix),
      suffix_(options.end_of_word_suffix),
      fuse_unk_(options.fuse_unk),
      byte_fallback_(options.byte_fallback),
      ignore_merges_(options.ignore_merges),
      byte_level_(options.byte_level) {
  std::int32_t end = 0;
  for (const auto& [token, id] : options.vocab) {
    if (id < 0 || id > kMaxId) user_error("{}.vocab: token {} has id {}; ids are 0 to {}", where, quote(token), id, kMaxId);
    end = std::max(end, id + 1);
  }
  if (options.vocab.empty()) user_error("{}.vocab: has no token", where);
  if (static_cast<std::size_t>(end) > 16 * options.vocab.size() + 65536)
    user_error("{}.vocab: {} tokens, but ids up to {}", where, options.vocab.size(), end - 1);
  tokens_.resize(static_cast<std::size_t>(end));
  std::vector<bool> taken(static_cast<std::size_t>(end));
  for (auto& [token, id] : options.vocab) {
    const auto i = static_cast<std::size_t>(id);
    if (taken[i]) user_error("{}.vocab: tokens {} and {} have the same id {}", where, quote(tokens_[i]), quote(token), id);
    taken[i] = true;
    tokens_[i] = token;
    if (!vocab_.emplace(std::move(token), id).second) user_error("{}.vocab: token {} is given twice", where, quote(tokens_[i]));
  }
  for (std::size_t i = 0; i < taken.size(); ++i)
    if (!taken[i]) no_token_.insert(static_cast<std::int32_t>(i));

  if (options.unk_token) {
    unk_ = id(*options.unk_token);
    if (!unk_) user_error("{}.unk_token: {} is not in the vocabulary", where, quote(*options.unk_token));
  }
  for (std::size_t b = 0; b < 256; ++b) fallback_[b] = id(fmt::format("<0x{:02X}>", b)).value_or(-1);
  add_merges(options, where);
  for (std::size_t b = 0; b < 256; ++b) {
    std::string spelled;
    append_utf8(byte_level_ ? kLevelChars[b] : static_cast<char32_t>(b), spelled);
    if (byte_level_ || b < 0x80) byte_symbols_[b] = spell(spelled);
  }
  if (!byte_level_) {
    char_tokens_.assign(0x10000, kNothing);
    for (const auto& [token, id] : vocab_)
      if (!token.empty())
        if (const Utf8Char c = utf8_at(token, 0); c.size == token.size() && c.code < 0x10000) char_tokens_[c.code] = id;
  }
  if (ignore_merges_)
    for (const auto& [token, id] : vocab_) {
      if (!byte_level_) whole_.emplace(token, id);
      if (const auto bytes = byte_level_ ? spelled_bytes(token) : std::nullopt) whole_.emplace(*bytes, id);
    }
}

void Bpe::add_merges(const BpeOptions& options, const std::string& where) {
  if (options.merges.empty()) user_error("{}.merges: is empty: a BPE tokenizer has merges", where);
  merges_.resize(std::bit_ceil(2 * options.merges.size() + 2));
  joins_.resize(std::size_t{1} << 20);
  merge_shift_ = 64 - std::countr_zero(merges_.size());
  for (std::size_t rank = 0; rank < options.merges.size(); ++rank) {
    const std::string &left = options.merges[rank][0], &right = options.merges[rank][1];    // lambdas of clang 14 cannot use bindings
    const auto at = [&] { return fmt::format("{}.merges[{}] ({} + {})", where, rank, quote(left), quote(right)); };
    if (left.empty() || right.size() <= prefix_.size() || !right.starts_with(prefix_))
      user_error("{}: {}", at(),
                 prefix_.empty() ? "an empty side makes a cycle: the merge gives its other side"
                                 : fmt::format("the right side has nothing after the prefix {}", quote(prefix_)));
    const std::string made = left + right.substr(prefix_.size());
    const auto a = id(left), b = id(right), c = id(made);
    if (!a || !b) user_error("{}: {} is not in the vocabulary", at(), quote(!a ? left : right));
    if (!c) user_error("{}: makes {}, which is not in the vocabulary", at(), quote(made));
    const std::uint64_t pair = pair_key(*a, *b);
    std::size_t slot = (pair * 0x9E3779B97F4A7C15u) >> merge_shift_;
    while (merges_[slot].pair != kNoPair && merges_[slot].pair != pair) slot = (slot + 1) & (merges_.size() - 1);
    merges_[slot] = {pair, static_cast<std::uint64_t>(rank) << 32 | static_cast<std::uint32_t>(*c)};    // of two equal ones the last holds

    // For may_join: which characters meet where the two sides do. Tokens of bytes (<0x0A>) are symbols themselves.
    const auto ends = [&](const std::string& token, std::int32_t whole, bool first) {
      const bool is_byte = token.size() == 6 && std::find(fallback_.begin(), fallback_.end(), whole) != fallback_.end();
      const std::size_t begin = first ? 0 : last_utf8_char(token);
      const auto c_id = id(std::string_view(token).substr(begin, utf8_at(token, begin).size));
      return std::array{is_byte ? whole : kNothing, c_id.value_or(kNothing)};
    };
    for (const std::int32_t l : ends(left, *a, false))
      for (const std::int32_t r : ends(right, *b, true)) joins_[join_slot(l, r)] = true;
  }
}

std::optional<std::int32_t> Bpe::id(std::string_view token) const {
  const auto found = vocab_.find(token);
  return found == vocab_.end() ? std::nullopt : std::optional(found->second);
}
const std::string* Bpe::token(std::int32_t id) const {
  if (id < 0 || id >= id_end() || no_token_.contains(id)) return nullptr;
  return &tokens_[static_cast<std::size_t>(id)];
}

bool Bpe::separates(char32_t a, char32_t b) const {
  if (ignore_merges_ || !prefix_.empty() || !suffix_.empty()) return false;
  std::vector<std::int32_t> left, right;
  const auto is_known = [&](char32_t c, std::vector<std::int32_t>& out) {
    std::string text;
    append_utf8(c, text);
    return append_symbols(text, out);
  };
  return is_known(a, left) && is_known(b, right) && !may_join(left.back(), right.front());
}

Bpe::Symbols Bpe::spell(std::string_view spelled) const {
  if (const auto found = id(spelled)) return {Spelling::token, {*found}};
  Symbols out{Spelling::bytes, {}};
  for (const char c : spelled) {
    const std::int32_t byte = fallback_[static_cast<unsigned char>(c)];
    if (!byte_fallback_ || byte < 0) return {};
    out.ids.push_back(byte);
  }
  return out;
}

// Unknown characters become unk_token, in a row one (fuse_unk) or many; without an unk_token they are nothing. As the library does it, an
// unk_token goes before the next character that is a token, even if bytes of others come between.
bool Bpe::append_symbols(std::string_view word, std::vector<std::int32_t>& symbols) const {
  bool known = true, pending = false;
  const auto add = [&](const Symbols& s) {
    if (s.spelling == Spelling::unknown) {
      known = false;
      if (unk_ && pending && !fuse_unk_) symbols.push_back(*unk_);
      pending = unk_.has_value();
      return;
    }
    if (s.spelling == Spelling::token && std::exchange(pending, false)) symbols.push_back(*unk_);
    symbols.insert(symbols.end(), s.ids.begin(), s.ids.end());
  };
  const bool plain = prefix_.empty() && suffix_.empty();
  for (std::size_t at = 0; at < word.size();) {
    const auto byte = static_cast<unsigned char>(word[at]);
    const std::size_t begin = at;
    const Utf8Char c = byte_level_ ? Utf8Char{kLevelChars[byte], 1} : utf8_at(word, at);
    at += c.size;
    if (plain && (byte_level_ || byte < 0x80)) {
      const Symbols& s = byte_symbols_[byte];
      if (s.spelling == Spelling::token && !pending)
        symbols.push_back(s.ids.front());
      else
        add(s);
    } else if (plain && c.code < 0x10000 && char_tokens_[c.code] >= 0 && !pending) {
      symbols.push_back(char_tokens_[c.code]);
    } else {
      std::string spelled = begin > 0 ? prefix_ : "";
      append_utf8(c.code, spelled);
      if (at == word.size()) spelled += suffix_;
      add(spell(spelled));
    }
  }
  if (pending) symbols.push_back(*unk_);
  return known;
}

void Bpe::encode(std::string_view word, Workspace& w, std::vector<std::int32_t>& ids) const {
  // Words of byte-level tokenizers are short. Without a pre-tokenizer a word may be the whole document: it is cut where no merge can
  // cross, so that its parts are found in the cache.
  if (byte_level_ || ignore_merges_ || !prefix_.empty() || !suffix_.empty()) return encode_run(word, w, ids);
  std::size_t run = 0;
  std::int32_t last = kNothing;
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t size = utf8_at(word, at).size;
    w.symbols.clear();
    if (!append_symbols(word.substr(at, size), w.symbols)) return encode_run(word.substr(run), w, ids);    // unk_token joins across cuts
    if (at > run && !may_join(last, w.symbols.front())) {
      last = w.symbols.back();
      encode_run(word.substr(run, at - run), w, ids);
      run = at;
    } else {
      last = w.symbols.back();
    }
    at += size;
  }
  encode_run(word.substr(run), w, ids);
}

void Bpe::encode_run(std::string_view run, Workspace& w, std::vector<std::int32_t>& ids) const {
  if (run.empty()) return;
  const bool cached = run.size() <= WordCache::kMaxWord;
  const std::uint64_t hash = cached ? WordCache::hash(run) : 0;
  if (cached)
    if (const auto found = w.cache.find(run, hash); found.data()) {
      ids.insert(ids.end(), found.begin(), found.end());
      return;
    }
  w.symbols.clear();
  const auto whole = ignore_merges_ ? whole_.find(run) : whole_.end();
  if (whole != whole_.end()) {
    w.symbols.push_back(whole->second);
  } else {
    append_symbols(run, w.symbols);
    w.symbols.size() <= kShortWord ? merge_short(w) : merge_long(w);
  }
  ids.insert(ids.end(), w.symbols.begin(), w.symbols.end());
  if (cached) w.cache.insert(run, hash, w.symbols);
}

void Bpe::merge_short(Workspace& w) const {
  auto& symbols = w.symbols;
  auto& merges = w.merges;
  merges.clear();
  for (std::size_t i = 0; i + 1 < symbols.size(); ++i) merges.push_back(merge_of(symbols[i], symbols[i + 1]));
  while (!merges.empty()) {
    const auto best = std::min_element(merges.begin(), merges.end());
    if (*best == kNone) return;
    const std::size_t i = static_cast<std::size_t>(best - merges.begin());
    symbols[i] = id_of(*best);
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    merges.erase(best);
    if (i < merges.size()) merges[i] = merge_of(symbols[i], symbols[i + 1]);
    if (i > 0) merges[i - 1] = merge_of(symbols[i - 1], symbols[i]);
  }
}

// O(n log n): a heap of the possible merges; those whose symbols have changed since are skipped when they come up.
void Bpe::merge_long(Workspace& w) const {
  auto& symbols = w.symbols;
  const auto n = static_cast<std::int32_t>(symbols.size());
  w.next.resize(symbols.size()), w.previous.resize(symbols.size());
  w.heap.clear();
  const auto later = [](const Candidate& a, const Candidate& b) {
    return a.merge != b.merge ? a.merge > b.merge : a.position > b.position;
  };
  const auto symbol = [&](std::int32_t i) -> std::int32_t& { return symbols[static_cast<std::size_t>(i)]; };
  const auto next = [&](std::int32_t i) -> std::int32_t& { return w.next[static_cast<std::size_t>(i)]; };
  const auto previous = [&](std::int32_t i) -> std::int32_t& { return w.previous[static_cast<std::size_t>(i)]; };
  for (std::int32_t i = 0; i < n; ++i) {
    next(i) = i + 1, previous(i) = i - 1;
    if (i + 1 == n) break;
    if (const std::uint64_t merge = merge_of(symbol(i), symbol(i + 1)); merge != kNone) w.heap.push_back({merge, i});
  }
  std::make_heap(w.heap.begin(), w.heap.end(), later);
  const auto consider = [&](std::int32_t left, std::int32_t right) {
    const std::uint64_t merge = merge_of(symbol(left), symbol(right));
    if (merge == kNone) return;
    w.heap.push_back({merge, left});
    std::push_heap(w.heap.begin(), w.heap.end(), later);
  };
  while (!w.heap.empty()) {
    std::pop_heap(w.heap.begin(), w.heap.end(), later);
    const auto [merge, left] = w.heap.back();
    w.heap.pop_back();
    if (symbol(left) == kNothing || next(left) == n) continue;
    const std::int32_t right = next(left);
    if (merge_of(symbol(left), symbol(right)) != merge) continue;
    symbol(left) = id_of(merge);
    symbol(right) = kNothing;
    next(left) = next(right);
    if (next(left) < n) {
      previous(next(left)) = left;
      consider(left, next(left));
    }
    if (previous(left) >= 0) consider(previous(left), left);
  }
  std::erase(symbols, kNothing);
}

}    // namespace sheaf
