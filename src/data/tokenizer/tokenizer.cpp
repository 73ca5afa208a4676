#include "data/tokenizer/tokenizer.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/text.h"
#include "data/tokenizer/tokenizer_impl.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr std::size_t kAll = std::string_view::npos;
constexpr std::size_t kCandidates = 4096;          // places that are tried for a cut
constexpr std::size_t kStreamBytes = 256 << 10;    // that a StreamEncoder gathers before it looks for a cut

// The end of a text that begins at `begin` and goes on for `size` bytes, moved back to between two characters.
std::size_t char_end(std::string_view text, std::size_t begin, std::size_t size) {
  if (size >= text.size() - begin) return text.size();
  std::size_t end = begin + size;
  while (end > begin && continues_utf8_char(text[end])) --end;
  return end;
}

// Runs a normaliser on the two sides of `end` (kAll: there is one side), which is moved to where they meet in the result.
template <class Run>
std::string_view run_in_parts(Run&& run, std::string_view text, std::size_t& end, bool is_start, std::string& buffer) {
  if (end >= text.size()) {
    end = kAll;    // the text may grow past it
    return run(text, is_start, buffer);
  }
  std::string left_buffer, right_buffer;
  const std::string_view left = run(text.substr(0, end), is_start, left_buffer), right = run(text.substr(end), false, right_buffer);
  end = left.size();
  buffer.assign(left).append(right);
  return buffer;
}

}    // namespace

Tokenizer::Impl::Lease::Lease(const Impl& impl) : impl_(impl) {
  {
    const std::lock_guard lock(impl.mutex);
    if (!impl.idle.empty()) {
      workspace_ = std::move(impl.idle.back());
      impl.idle.pop_back();
    }
  }
  if (!workspace_) workspace_ = std::make_unique<Workspace>();
}
Tokenizer::Impl::Lease::~Lease() {
  const std::lock_guard lock(impl_.mutex);
  impl_.idle.push_back(std::move(workspace_));
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

void Tokenizer::encode(std::string_view text, std::vector<std::int32_t>& ids) const { impl_->encode(text, kAll, false, ids); }

void Tokenizer::encode_part(std::string_view document, std::size_t begin, std::size_t end, std::vector<std::int32_t>& ids) const {
  SHEAF_CHECK(begin <= end && end <= document.size(), "part [{}, {}) of {}", begin, end, document.size());
  const std::size_t seen = char_end(document, end, impl_->window());
  impl_->encode(document.substr(begin, seen - begin), end - begin, begin > 0, ids);
}

std::vector<std::int32_t> Tokenizer::encode_with_template(std::string_view text) const {
  std::vector<std::int32_t> ids;
  encode(text, ids);
  for (const Impl::Template& pieces : impl_->templates) {
    std::vector<std::int32_t> out;
    for (const auto& piece : pieces) {
      if (piece)
        out.push_back(*piece);
      else
        out.insert(out.end(), ids.begin(), ids.end());
    }
    ids = std::move(out);
  }
  return ids;
}

void Tokenizer::Impl::encode(std::string_view text, std::size_t end, bool continues, std::vector<std::int32_t>& ids) const {
  std::string repaired;
  if (valid_utf8_prefix(text) != text.size()) {
    repaired = repaired_utf8(text.substr(0, end));
    const std::size_t meet = repaired.size();
    if (end < text.size()) repaired += repaired_utf8(text.substr(end));
    end = meet;
    text = repaired;
  }
  const Lease lease(*this);
  raw_tokens.split(
      text,
      [&](std::size_t b, std::size_t e) {
        if (b >= end) return;
        const bool goes_on = b == 0 && continues;
        encode_segment(text.substr(b, e - b), end == kAll ? kAll : end - b, !goes_on, b == 0 && !continues, *lease, ids);
      },
      [&](std::int32_t id, std::size_t begin) {
        if (begin < end) ids.push_back(id);
      });
}

// A text between added tokens, before normalisation.
void Tokenizer::Impl::encode_segment(std::string_view text, std::size_t end, bool is_start, bool at_text_start, Workspace& w,
                                     std::vector<std::int32_t>& ids) const {
  bool lost_start = false;
  const auto normalize = [&](std::string_view part, bool start, std::string& buffer) {
    return normalizer.run(part, start, buffer, &lost_start);
  };
  text = run_in_parts(normalize, text, end, is_start, w.normalized);
  at_text_start = at_text_start && !lost_start;
  normalized_tokens.split(
      text,
      [&](std::size_t b, std::size_t e) {
        if (b < end) encode_words(text.substr(b, e - b), end == kAll ? kAll : end - b, b > 0 || is_start, b == 0 && at_text_start, w, ids);
      },
      [&](std::int32_t id, std::size_t begin) {
        if (begin < end) ids.push_back(id);
      });
}

// A normalised text between added tokens.
void Tokenizer::Impl::encode_words(std::string_view text, std::size_t end, bool is_start, bool at_text_start, Workspace& w,
                                   std::vector<std::int32_t>& ids) const {
  const auto prepare = [&](std::string_view part, bool start, std::string& buffer) {
    return pre_tokenizer.prepare(part, start, at_text_start, buffer);
  };
  text = run_in_parts(prepare, text, end, is_start, w.prepared);
  if (end == kAll) {
    pre_tokenizer.split(text, at_text_start, [&](std::string_view word) {
      bpe->encode(word, w.bpe, ids);
      return true;
    });
    return;
  }
  pre_tokenizer.split(text, at_text_start, [&](std::string_view word) {
    const auto begin = static_cast<std::size_t>(word.data() - text.data());
    if (begin < end) bpe->encode(word.substr(0, end - begin), w.bpe, ids);
    return begin + word.size() < end;
  });
}

bool Tokenizer::Impl::is_cut(std::string_view text, std::size_t end) const {
  if (end == 0 || end + window() > text.size() || continues_utf8_char(text[end])) return false;
  if (!normalizer.may_be_cut() || !pre_tokenizer.may_be_cut()) return false;
  // No added token reaches the cut, and none takes white space across it.
  const std::size_t reach = std::min(end, raw_tokens.longest());
  const std::string_view seen = text.substr(0, end + window());
  for (std::size_t at = end - reach; at <= end; ++at)
    if (const std::size_t size = raw_tokens.match(seen, at); size > 0 && at + size >= end) return false;

  // The text around, normalised from a place where that can begin.
  std::size_t begin = end - std::min(end, window());
  while (begin < end && continues_utf8_char(text[begin])) ++begin;
  std::string left = repaired_utf8(text.substr(begin, end - begin));
  const std::string right = repaired_utf8(text.substr(end, char_end(text, end, window()) - end));
  if (left.empty() || right.empty() || !normalizer.may_cut_before(utf8_at(right, 0).code)) return false;
  if (begin > 0) {
    std::size_t start = 0;
    while (start < left.size() && !normalizer.may_cut_before(utf8_at(left, start).code)) start += utf8_at(left, start).size;
    left.erase(0, start);
    if (left.size() <= 4 * normalized_tokens.longest()) return false;
  }
  std::string buffers[4];
  const std::string_view before = normalizer.run(left, false, buffers[0]), after = normalizer.run(right, false, buffers[1]);
  if (!normalized_tokens.empty()) {
    const std::string both = std::string(before).append(after);
    for (std::size_t at = before.size() - std::min(before.size(), normalized_tokens.longest()); at <= before.size(); ++at)
      if (const std::size_t size = normalized_tokens.match(both, at); size > 0 && at + size >= before.size()) return false;
  }
  const auto last = [](std::string_view s) { return utf8_at(s, last_utf8_char(s)).code; };
  if (before.empty() || after.empty()) return false;
  if ((raw_tokens.strips() || normalized_tokens.strips()) && (is_white_space(last(left)) || is_white_space(utf8_at(right, 0).code) ||
                                                              is_white_space(last(before)) || is_white_space(utf8_at(after, 0).code)))
    return false;

  const Normalizer& preparation = pre_tokenizer.preparation();
  if (!preparation.may_cut_before(utf8_at(after, 0).code)) return false;
  const char32_t x = last(preparation.run(before, false, buffers[2]));
  const std::string_view rest = preparation.run(after, false, buffers[3]);
  switch (pre_tokenizer.cut(x, rest)) {
    case PreTokenizer::Cut::splits:
      return true;
    case PreTokenizer::Cut::unsplit:
      return bpe->separates(x, utf8_at(rest, 0).code);
    case PreTokenizer::Cut::crosses:
      break;
  }
  return false;
}

std::vector<std::size_t> Tokenizer::cuts(std::string_view document, std::size_t part_bytes) const {
  SHEAF_CHECK(part_bytes > 0, "parts of 0 bytes");
  std::vector<std::size_t> ends;
  for (std::size_t from = part_bytes; from < document.size();) {
    const std::size_t most = std::min(document.size(), from + kCandidates);
    std::size_t cut = from;
    while (cut < most && !impl_->is_cut(document, cut)) ++cut;
    if (cut < most) ends.push_back(cut);
    from = cut + part_bytes;
  }
  ends.push_back(document.size());
  return ends;
}

void StreamEncoder::push(std::string_view chunk, std::vector<std::int32_t>& ids) {
  buffer_ += chunk;
  if (buffer_.size() < std::max(wanted_, kStreamBytes)) return;
  const Tokenizer::Impl& impl = *tokenizer_->impl_;
  const std::size_t first = buffer_.size() - std::min(buffer_.size(), impl.window());
  for (std::size_t tried = 0; tried < kCandidates && tried < first; ++tried) {
    const std::size_t cut = first - tried;
    if (!impl.is_cut(buffer_, cut)) continue;
    impl.encode(std::string_view(buffer_).substr(0, char_end(buffer_, cut, impl.window())), cut, started_, ids);
    buffer_.erase(0, cut);
    started_ = true;
    wanted_ = 0;
    return;
  }
  wanted_ = 2 * buffer_.size();
}

void StreamEncoder::finish(std::vector<std::int32_t>& ids) {
  tokenizer_->impl_->encode(buffer_, kAll, started_, ids);
  buffer_.clear();
  wanted_ = 0;
  started_ = false;
}

std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::vector<std::string> tokens;
  for (const std::int32_t id : ids) {
    const auto added = impl_->added.find(id);
    const std::string* token = added != impl_->added.end() ? &added->second.text : impl_->bpe->token(id);
    if (!token) user_error("{}: no token has id {}; ids are below {}", impl_->path, id, impl_->vocab_size);
    if (skip_special && added != impl_->added.end() && added->second.special) continue;
    tokens.push_back(*token);
  }
  return impl_->decoder.run(std::move(tokens));
}

std::int64_t Tokenizer::vocab_size() const { return impl_->vocab_size; }
std::optional<std::int32_t> Tokenizer::id(std::string_view token) const {
  if (const auto added = impl_->added_ids.find(std::string(token)); added != impl_->added_ids.end()) return added->second;
  return impl_->bpe->id(token);
}
const std::string& Tokenizer::hash() const { return impl_->hash; }

}    // namespace sheaf
