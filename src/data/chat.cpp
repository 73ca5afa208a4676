#include "data/chat.h"

#include <algorithm>
#include <exception>
#include <optional>
#include <span>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

// Words in the place of a turn's content; they differ at both ends, so that what two renderings have in common ends where they begin.
constexpr const char* kOneWord = "quince";
constexpr const char* kOtherWord = "zebra";

template <class A, class B>
std::size_t common_prefix(const A& a, const B& b) {
  return static_cast<std::size_t>(std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first - a.begin());
}
std::size_t common_suffix(const std::string& a, const std::string& b) {
  return static_cast<std::size_t>(std::mismatch(a.rbegin(), a.rend(), b.rbegin(), b.rend()).first - a.rbegin());
}

Json first_of(const Json& messages, std::size_t n) { return Json(messages.begin(), messages.begin() + static_cast<std::ptrdiff_t>(n)); }

void check_messages(const Json& messages, const std::string& where) {
  if (messages.empty()) user_error("{}: has no messages", where);
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!message.is_object()) user_error("{}: message {} is {}, an object with role and content was wanted", where, i, json_type(message));
    const auto role = message.find("role");
    if (role == message.end() || !role->is_string()) user_error("{}: message {} has no role", where, i);
  }
}

bool by_assistant(const Json& message) { return message["role"] == "assistant"; }

}    // namespace

TurnFinder::TurnFinder(const ChatTemplate& chat_template, const Encoder& encoder, const Json& messages, const Json& tools,
                       std::string where)
    : template_(chat_template), encoder_(encoder), messages_(messages), tools_(tools), where_(std::move(where)) {
  check_messages(messages, where_);
  whole_ = render(messages, false);
}

RenderedChat TurnFinder::render(const Json& messages, bool add_generation_prompt) const {
  try {
    return template_.render(messages, tools_, add_generation_prompt);
  } catch (const std::exception& error) {
    const std::string what = error.what();
    user_error("{}: the chat template {} does not take this conversation: {}", where_, template_.where(),
               what.substr(0, std::min(what.find('\n'), std::size_t{200})));
  }
}

std::string TurnFinder::with_word(std::size_t i, bool whole, const char* word) const {
  Json messages = whole ? messages_ : first_of(messages_, i + 1);
  messages[i]["content"] = word;
  return render(messages, false).text;
}

void TurnFinder::uncertain(std::size_t i, const char* what) const {
  user_error(
      "{}: the chat template {} renders message {} so that its place cannot be told: {}\n"
      "  put {{% generation %}} blocks around the assistant's turns in the template, or split the conversation",
      where_, template_.where(), i, what);
}

std::string TurnFinder::leading_special_token(std::string_view rest) const {
  std::size_t length = std::min<std::size_t>(rest.size(), 128);
  while (length > 0 && length < rest.size() && (static_cast<unsigned char>(rest[length]) & 0xC0) == 0x80) --length;
  std::vector<std::int32_t> ids;
  encoder_.encode(rest.substr(0, length), ids);
  if (ids.empty()) return "";
  const std::span first(ids.data(), 1);
  std::string token = encoder_.decode(first, false);
  return encoder_.decode(first, true).empty() && rest.starts_with(token) ? token : "";
}

TextSpan TurnFinder::place_of_turn(std::size_t i) const {
  const std::string& whole = whole_.text;
  const bool last = i + 1 == messages_.size();
  const std::string prompt = render(first_of(messages_, i), true).text;
  const std::string turn = last ? whole : render(first_of(messages_, i + 1), false).text;
  const bool begins = whole.starts_with(prompt), ends = whole.starts_with(turn);
  if (begins && ends && prompt.size() <= turn.size()) return {prompt.size(), turn.size()};

  // The template renders the turn otherwise when more follows (Qwen3 drops thoughts), the prompt otherwise when it is answered (DeepSeek
  // opens a thought), or what came before otherwise (Mistral moves the system's message).
  const std::string one = with_word(i, true, kOneWord), other = with_word(i, true, kOtherWord);
  const std::string turn_one = with_word(i, false, kOneWord), turn_other = with_word(i, false, kOtherWord);
  if (one == other || turn_one == turn_other) uncertain(i, "its content is not shown");
  const std::size_t content = common_prefix(one, other);
  std::size_t begin = prompt.size(), end = turn.size();
  if (!begins) {
    const std::string before = render(first_of(messages_, i), false).text;
    if (whole.starts_with(before) && one.starts_with(before)) {
      begin = common_prefix(prompt, one);
    } else {
      if (!turn_one.starts_with(prompt)) uncertain(i, "the generation prompt is not what the turn begins with");
      const std::string head = turn_one.substr(prompt.size(), common_prefix(turn_one, turn_other) - prompt.size());
      if (!std::string_view(one).substr(0, content).ends_with(head)) uncertain(i, "it begins otherwise when more follows");
      begin = content - head.size();
    }
    if (!whole.starts_with(std::string_view(one).substr(0, begin))) uncertain(i, "what comes before depends on its content");
  }
  if (!ends) {
    const std::string tail = turn_one.substr(turn_one.size() - common_suffix(turn_one, turn_other));
    const std::string rest = one.substr(one.size() - common_suffix(one, other));
    if (!whole.ends_with(rest)) uncertain(i, "what comes after depends on its content");
    end = whole.size() - rest.size();
    if (rest.starts_with(tail)) {
      end += tail.size();
    } else {    // one token says that the turn ends, another that the conversation does (gpt-oss)
      const std::string token = leading_special_token(rest);
      if (token.empty() || leading_special_token(tail) != trimmed(tail)) uncertain(i, "it ends otherwise when more follows");
      end += token.size();
    }
  }
  if (begin > end) uncertain(i, "it ends before it begins");
  return {begin, end};
}

std::vector<TextSpan> TurnFinder::turns() const {
  if (template_.marks_generation()) return whole_.generated;
  std::vector<TextSpan> out;
  for (std::size_t i = 0; i < messages_.size(); ++i) {
    if (!by_assistant(messages_[i])) continue;
    out.push_back(place_of_turn(i));
    if (out.size() > 1 && out.back().first < out[out.size() - 2].second) uncertain(i, "it overlaps the turn before");
  }
  return out;
}

namespace {

// How a text was cut into tokens, as far as it can be told from ids alone.
class TokenPlaces {
 public:
  TokenPlaces(const Encoder& encoder, const std::string& text, std::span<const std::int32_t> ids)
      : encoder_(encoder), text_(text), ids_(ids) {}

  struct Place {
    std::size_t token;    // that begins at the byte, or holds it and the one before
    bool inside;          // holds both
  };
  // Nothing where it cannot be told.
  std::optional<Place> at(std::size_t byte) const {
    const std::string_view before = std::string_view(text_).substr(0, byte);
    std::vector<std::int32_t> prefix;
    encoder_.encode(before, prefix);
    const std::size_t same = common_prefix(prefix, ids_);
    if (same == prefix.size()) return Place{same, false};
    // A token lies across. Those up to `same` end before it; from there decoding counts the bytes, if it gives the text back at all.
    if (encoder_.decode(ids_, false) != text_) return std::nullopt;
    Place place{same, true};
    for (std::size_t k = same; k <= ids_.size(); ++k) {
      const std::string decoded = encoder_.decode(ids_.first(k), false);
      if (decoded.size() > before.size() + 3) break;    // 3: a cut character is shown as U+FFFD, which may be longer
      if (before.starts_with(decoded)) place = {k, decoded.size() < before.size()};
    }
    return place;
  }

 private:
  const Encoder& encoder_;
  const std::string& text_;
  std::span<const std::int32_t> ids_;
};

}    // namespace

void ChatEncoder::encode(const Json& messages, const Json& tools, const std::string& where, std::vector<std::int32_t>& ids,
                         std::vector<std::uint8_t>& counts) const {
  const TurnFinder finder(template_, encoder_, messages, tools, where);
  const std::string& text = finder.text();
  const std::vector<TextSpan> turns = finder.turns();

  std::vector<std::int32_t> whole;
  encoder_.encode(text, whole);
  // Nearly always the borders of turns are borders of tokens, and then the pieces one after the other give the same.
  std::vector<std::int32_t> pieces;
  std::vector<std::uint8_t> marks;
  std::size_t done = 0;
  const auto piece = [&](std::size_t end, std::uint8_t mark) {
    encoder_.encode(std::string_view(text).substr(done, end - done), pieces);
    marks.resize(pieces.size(), mark);
    done = end;
  };
  for (const auto& [begin, end] : turns) piece(begin, 0), piece(end, 1);
  piece(text.size(), 0);
  if (pieces != whole) {
    marks.assign(whole.size(), 0);
    const TokenPlaces places(encoder_, text, whole);
    for (const auto& [begin, end] : turns) {
      const auto first = places.at(begin), last = places.at(end);
      if (!first || !last)
        user_error("{}: a token lies across the border of a turn, and {} does not give the text back, so it cannot be told which", where,
                   encoder_.name());
      const std::size_t after = last->token + (last->inside ? 1 : 0);
      for (std::size_t token = first->token; token < after && token < marks.size(); ++token) marks[token] = 1;
    }
  }
  ids.insert(ids.end(), whole.begin(), whole.end());
  counts.insert(counts.end(), marks.begin(), marks.end());
}

}    // namespace sheaf
