#include "data/tokenizer/decoder.h"

#include <utility>

#include "base/text.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr int kMaxDepth = 16;    // of Sequence in Sequence

// The byte of <0x0A>; -1: the token is another one.
int byte_of(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const bool digit = c >= '0' && c <= '9', upper = c >= 'A' && c <= 'F', lower = c >= 'a' && c <= 'f';
    if (!digit && !upper && !lower) return -1;
    value = value * 16 + (digit ? c - '0' : upper ? c - 'A' + 10 : c - 'a' + 10);
  }
  return value;
}

void decode_byte_level(std::vector<std::string>& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const std::size_t begin = bytes.size();
    for (std::size_t at = 0; at < token.size();) {
      const Utf8Char c = utf8_at(token, at);
      const auto byte = byte_of_level_char(c.code);
      if (!byte) {    // a token with another character stands for itself
        bytes.resize(begin);
        bytes += token;
        break;
      }
      bytes += static_cast<char>(*byte);
      at += c.size;
    }
  }
  tokens.assign(1, repaired_utf8(bytes));
}

// Runs of byte tokens become text; every token of a run that is not UTF-8 becomes U+FFFD.
void decode_byte_fallback(std::vector<std::string>& tokens) {
  std::vector<std::string> out;
  std::string run;
  const auto flush = [&] {
    if (run.empty()) return;
    if (valid_utf8_prefix(run) == run.size())
      out.push_back(run);
    else
      out.insert(out.end(), run.size(), "\xEF\xBF\xBD");
    run.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = byte_of(token); byte >= 0) {
      run += static_cast<char>(byte);
      continue;
    }
    flush();
    out.push_back(std::move(token));
  }
  flush();
  tokens = std::move(out);
}

void strip(std::string& token, const std::string& content, std::size_t start, std::size_t stop) {
  std::string_view rest = token;
  for (std::size_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
  for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
  token = std::string(rest);
}

}    // namespace

Decoder::Decoder(const JsonNode& node) : present_(true) { add(node, 0); }

void Decoder::add(const JsonNode& node, int depth) {
  if (depth > kMaxDepth) node.fail("Sequence nested too deep");
  const std::string type = node.type();
  const auto one_char = [&](const char* key) -> const std::string& {
    const std::string& text = node.at(key).text();
    if (text.empty() || utf8_at(text, 0).size != text.size()) node.at(key).fail("{} is not one character", quote(text));
    return text;
  };
  if (type == "Sequence") {
    node.check_keys({"type", "decoders"});
    const JsonNode list = node.at("decoders");
    for (std::size_t i = 0; i < list.size(); ++i) add(list.at(i), depth + 1);
  } else if (type == "ByteLevel") {
    node.check_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    steps_.push_back({Kind::byte_level});
  } else if (type == "Metaspace") {
    node.check_keys({"type", "replacement", "prepend_scheme", "add_prefix_space", "split", "str_rep"});
    const auto scheme = node.find("prepend_scheme");
    const bool prepends = scheme ? scheme->text() != "never" : node.boolean("add_prefix_space", true);
    steps_.push_back({.kind = Kind::metaspace, .pattern = one_char("replacement"), .prepends = prepends});
  } else if (type == "ByteFallback" || type == "Fuse") {
    node.check_keys({"type"});
    steps_.push_back({type == "Fuse" ? Kind::fuse : Kind::byte_fallback});
  } else if (type == "Strip") {
    node.check_keys({"type", "content", "start", "stop"});
    steps_.push_back({.kind = Kind::strip,
                      .content = one_char("content"),
                      .start = static_cast<std::size_t>(node.at("start").integer()),
                      .stop = static_cast<std::size_t>(node.at("stop").integer())});
  } else if (type == "Replace") {
    node.check_keys({"type", "pattern", "content"});
    const JsonNode pattern = node.at("pattern");
    pattern.check_keys({"String", "Regex"});
    const auto literal = pattern.find("String");
    const JsonNode given = literal ? *literal : pattern.at("Regex");
    const std::string& content = node.at("content").text();
    if (given.text().empty()) given.fail("is empty");
    if (!literal && content.find('$') != std::string::npos)
      node.at("content").fail("'$' with a Regex is not supported: {}", quote(content));
    steps_.push_back({.kind = literal ? Kind::replace_text : Kind::replace_regex, .pattern = given.text(), .content = content});
    steps_.back().regex = std::make_shared<const Regex>(
        literal ? literal_pattern(given.text(), given.where()) : translate_pattern(given.text(), given.where()), given.where());
  } else {
    node.at("type").fail("{} is not supported; these are: ByteFallback, ByteLevel, Fuse, Metaspace, Replace, Sequence, Strip", quote(type));
  }
}

void Decoder::apply(const Step& step, std::vector<std::string>& tokens) {
  switch (step.kind) {
    case Kind::byte_level:
      return decode_byte_level(tokens);
    case Kind::byte_fallback:
      return decode_byte_fallback(tokens);
    case Kind::fuse: {
      std::string all;
      for (const std::string& token : tokens) all += token;
      tokens.assign(1, std::move(all));
      return;
    }
    case Kind::strip:
      for (std::string& token : tokens) strip(token, step.content, step.start, step.stop);
      return;
    case Kind::metaspace:
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        std::string out;
        for (std::string_view rest = tokens[i]; !rest.empty();) {
          const bool is_space = rest.starts_with(step.pattern);
          if (!is_space)
            out += rest[0];
          else if (i > 0 || !step.prepends)
            out += ' ';
          rest.remove_prefix(is_space ? step.pattern.size() : 1);
        }
        tokens[i] = std::move(out);
      }
      return;
    case Kind::replace_text:
    case Kind::replace_regex:
      for (std::string& token : tokens) {
        std::string out;
        std::size_t done = 0;
        for (std::size_t from = 0; from <= token.size();) {
          const auto match = step.regex->find(token, from);
          if (!match) break;
          const bool is_empty = match->begin == match->end;
          if (!is_empty || match->end != done || done == 0) {
            out += token.substr(done, match->begin - done) + step.content;
            done = match->end;
          }
          from = match->end;
          if (is_empty) from += from < token.size() ? utf8_at(token, from).size : 1;
        }
        token = out + token.substr(done);
      }
      return;
  }
}

std::string Decoder::run(std::vector<std::string> tokens) const {
  if (!present_) return join(tokens, " ");
  for (const Step& step : steps_) apply(step, tokens);
  std::string out;
  for (const std::string& token : tokens) out += token;
  return out;
}

}    // namespace sheaf
