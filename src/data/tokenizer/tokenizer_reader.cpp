// tokenizer.json to the parts of a tokenizer.
#include <set>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "data/tokenizer/json_node.h"
#include "data/tokenizer/tokenizer_impl.h"
#include "data/tokenizer/utf8.h"

namespace sheaf {

namespace {

constexpr int kMaxDepth = 16;    // of Sequence in Sequence

std::string text_or_empty(const JsonNode& node, const std::string& key) {
  const auto found = node.find(key);
  return found ? found->text() : "";
}

std::array<std::string, 2> read_merge(const JsonNode& node) {
  if (node.json().is_string()) {
    const std::string& text = node.text();
    const std::size_t space = text.find(' ');
    if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
      node.fail("{} is not two tokens with one space between; write tokens with spaces as a list of two", quote(text.substr(0, 100)));
    return {text.substr(0, space), text.substr(space + 1)};
  }
  if (!node.json().is_array() || node.size() != 2) node.fail("is neither \"LEFT RIGHT\" nor [\"LEFT\", \"RIGHT\"]");
  return {node.at(0).text(), node.at(1).text()};
}

BpeOptions read_bpe(const JsonNode& node) {
  if (const auto type = node.find("type"); type && type->text() != "BPE")
    type->fail("{} is not supported; these are: BPE", quote(type->text()));
  node.check_keys({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", "byte_fallback",
                   "ignore_merges", "vocab", "merges"});
  if (const auto dropout = node.find("dropout"); dropout && (!dropout->json().is_number() || dropout->json().get<double>() != 0))
    dropout->fail("{} is not supported: ids would be random; set it to null", dropout->json().dump().substr(0, 40));
  BpeOptions out{.continuing_subword_prefix = text_or_empty(node, "continuing_subword_prefix"),
                 .end_of_word_suffix = text_or_empty(node, "end_of_word_suffix"),
                 .fuse_unk = node.boolean("fuse_unk", false),
                 .byte_fallback = node.boolean("byte_fallback", false),
                 .ignore_merges = node.boolean("ignore_merges", false)};
  if (const auto unk = node.find("unk_token")) out.unk_token = unk->text();
  const JsonNode vocab = node.at("vocab");
  if (!vocab.json().is_object()) vocab.wrong_type("an object of tokens and their ids");
  for (const auto& [token, id] : vocab.json().items())
    out.vocab.emplace_back(token, JsonNode(id, fmt::format("{}[{}]", vocab.where(), quote(token.substr(0, 100)))).integer());
  const auto merges = node.find("merges");
  if (!merges) node.fail("has no 'merges': a BPE tokenizer has merges");
  for (std::size_t i = 0; i < merges->size(); ++i) out.merges.push_back(read_merge(merges->at(i)));
  return out;
}

void read_added_tokens(const JsonNode& node, Tokenizer::Impl& impl) {
  std::int64_t next = impl.bpe->token_count();    // id of the next token that the model does not have
  std::vector<AddedToken> tokens;
  for (std::size_t i = 0; i < node.size(); ++i) {
    const JsonNode item = node.at(i);
    item.check_keys({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token{.content = item.at("content").text(),
                     .id = item.at("id").integer(),
                     .single_word = item.boolean("single_word", false),
                     .lstrip = item.boolean("lstrip", false),
                     .rstrip = item.boolean("rstrip", false),
                     .normalized = item.boolean("normalized", !item.boolean("special", false)),
                     .special = item.boolean("special", false)};
    if (token.content.empty()) item.fail("an empty token is not supported");
    const auto in_model = impl.bpe->id(token.content);
    const std::int64_t wanted = in_model ? *in_model : next;
    // The `tokenizers` library gives these ids whatever the file says, with a warning; a model was trained with one or the other.
    if (token.id != wanted)
      item.fail("token {} has id {}, {} {}", quote(token.content), token.id,
                in_model ? "but in the vocabulary it has id" : "but the next free id, which it gets, is", wanted);
    next = std::max(next, wanted + 1);
    if (in_model) next = std::max<std::int64_t>(next, impl.bpe->token_count());
    if (!impl.added_ids.emplace(token.content, token.id).second) item.fail("token {} is given twice", quote(token.content));
    if (!impl.added.emplace(token.id, Tokenizer::Impl::DecodedToken{token.content, false}).second)
      item.fail("id {} is given twice", token.id);
    impl.vocab_size = std::max<std::int64_t>(impl.vocab_size, token.id + 1);
    tokens.push_back(std::move(token));
  }
  std::set<std::string, std::less<>> special_contents;
  for (const AddedToken& token : tokens)
    if (token.special) special_contents.insert(token.content);
  // Special tokens first: of equal patterns the first holds.
  for (const bool special : {true, false})
    for (const AddedToken& token : tokens) {
      if (token.special != special) continue;
      std::string buffer;
      const std::string_view pattern = token.normalized ? impl.normalizer.run(token.content, true, buffer) : token.content;
      if (pattern.empty()) node.fail("token {} is empty after normalisation", quote(token.content));
      impl.added[token.id] = {std::string(pattern), special_contents.contains(pattern)};
      (token.normalized ? impl.normalized_tokens : impl.raw_tokens).add(pattern, token);
    }
}

Tokenizer::Impl::Template read_template(const JsonNode& node, const Tokenizer::Impl& impl) {
  node.check_keys({"type", "single", "pair", "special_tokens"});
  Tokenizer::Impl::Template out;
  const JsonNode single = node.at("single");
  for (std::size_t i = 0; i < single.size(); ++i) {
    const JsonNode piece = single.at(i);
    piece.check_keys({"Sequence", "SpecialToken"});
    if (const auto sequence = piece.find("Sequence")) {
      if (const std::string& id = sequence->at("id").text(); id != "A")
        sequence->at("id").fail("{} in a template of one sequence", quote(id));
      out.push_back(std::nullopt);
      continue;
    }
    const std::string& name = piece.at("SpecialToken").at("id").text();
    const auto token = node.at("special_tokens").find(name);
    if (!token) piece.fail("token {} is not among special_tokens", quote(name));
    const JsonNode ids = token->at("ids");
    for (std::size_t k = 0; k < ids.size(); ++k) {
      out.push_back(ids.at(k).integer());
      if (*out.back() >= impl.vocab_size) ids.at(k).fail("id {}, but the vocabulary has {} ids", *out.back(), impl.vocab_size);
    }
  }
  return out;
}

void read_post_processor(const JsonNode& node, Tokenizer::Impl& impl, int depth) {
  if (depth > kMaxDepth) node.fail("Sequence nested too deep");
  const std::string type = node.type();
  if (type == "Sequence") {
    node.check_keys({"type", "processors"});
    const JsonNode list = node.at("processors");
    for (std::size_t i = 0; i < list.size(); ++i) read_post_processor(list.at(i), impl, depth + 1);
  } else if (type == "TemplateProcessing") {
    if (impl.templates.size() == 8) node.fail("more than 8 templates");
    impl.templates.push_back(read_template(node, impl));
  } else if (type == "ByteLevel") {    // moves offsets, which nobody asks for here
    node.check_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  } else {
    node.at("type").fail("{} is not supported; these are: ByteLevel, Sequence, TemplateProcessing", quote(type));
  }
}

}    // namespace

std::unique_ptr<Tokenizer> Tokenizer::parse(const std::string& json, const std::string& where) {
  const LargeJson value = parse_large_json(json, where);
  const JsonNode node(value, where + ":");
  // Truncation and padding are for batches: as transformers, we set them aside.
  node.check_keys(
      {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"});
  if (const auto version = node.find("version"); version && version->text() != "1.0")
    version->fail("{}, 1.0 was wanted", quote(version->text()));

  auto impl = std::make_unique<Impl>();
  impl->path = where;
  impl->hash = fmt::format("{:016x}", hash_text(json));
  if (const auto n = node.find("normalizer")) impl->normalizer = Normalizer(*n);
  if (const auto n = node.find("pre_tokenizer")) impl->pre_tokenizer = PreTokenizer(*n);
  if (const auto n = node.find("decoder")) impl->decoder = Decoder(*n);
  const JsonNode model = node.at("model");
  BpeOptions options = read_bpe(model);
  options.byte_level = impl->pre_tokenizer.byte_level();
  impl->bpe.emplace(std::move(options), model.where());
  impl->vocab_size = impl->bpe->id_end();
  if (const auto n = node.find("added_tokens")) read_added_tokens(*n, *impl);
  if (const auto n = node.find("post_processor")) read_post_processor(*n, *impl, 0);
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

std::unique_ptr<Tokenizer> Tokenizer::read(const std::string& path) { return parse(read_file(path), path); }

}    // namespace sheaf
