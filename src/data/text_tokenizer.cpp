#include "data/text_tokenizer.h"

#include <filesystem>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Version of what the pipeline makes of the same text by the same tokenizer: to be raised with every change of it.
constexpr int kVersion = 1;

std::string tokenizer_path(const TokenOptions& options, const std::string& text) {
  std::error_code ignored;
  if (!options.tokenizer.empty()) {
    if (!fs::is_regular_file(options.tokenizer, ignored))
      user_error("data.tokenizer {}: no such file; a tokenizer.json or \"bytes\" was wanted", quote(options.tokenizer));
    return options.tokenizer;
  }
  if (options.model_folder.empty())
    user_error("{}: is text, and a model from scratch has no tokenizer; \"data.tokenizer\": a tokenizer.json, or \"bytes\"", text);
  std::string path = fs::path(options.model_folder) / "tokenizer.json";
  if (!fs::exists(path, ignored))
    user_error("{}: is text, and {} has no tokenizer.json; \"data.tokenizer\": another one, or \"bytes\"", text, options.model_folder);
  return path;
}

}    // namespace

TextTokenizer::TextTokenizer(const TokenOptions& options, const std::string& path) {
  SHEAF_CHECK(options.vocab > 0 && options.threads > 0, "vocabulary of {}, {} threads", options.vocab, options.threads);
  const bool bytes = options.tokenizer == "bytes";
  encoder_ = bytes ? Encoder::bytes() : Encoder::tokenizer(tokenizer_path(options, path));
  // Bytes that the text does not have need no id.
  if (!bytes && encoder_->vocab_size() > options.vocab)
    user_error("{}: has {} ids, but the model's vocabulary has {}: not the tokenizer of this model", encoder_->name(),
               encoder_->vocab_size(), options.vocab);
  if (!bytes && !options.end_of_text)
    user_error("{}: the end-of-text token follows every document, but the model's config.json has no eos_token_id", path);
  const std::int64_t end_of_text = options.end_of_text.value_or(0);
  if (end_of_text < 0 || end_of_text >= options.vocab)
    user_error("{}: the end-of-text token {} follows every document, but the model's vocabulary has {} ids", path, end_of_text,
               options.vocab);
  text_ = {.encoder = encoder_.get(),
           .field = options.field,
           .vocab = options.vocab,
           .end_of_text = static_cast<std::int32_t>(end_of_text),
           .threads = options.threads};

  // Of the folder that the tokenizer is from. One that cannot be read is the conversations' problem, and text has none.
  const std::string folder = bytes || options.tokenizer.empty() ? options.model_folder : fs::path(encoder_->name()).parent_path().string();
  try {
    if (!folder.empty() || !bytes) template_ = ChatTemplate::of_folder(folder.empty() ? "." : folder);
  } catch (const UserError& error) {
    text_.chat_error = error.what();
  }
  if (!template_) return;
  chat_ = std::make_unique<ChatEncoder>(*template_, *encoder_);
  text_.chat = chat_.get();
}

std::string TextTokenizer::identity() const {
  return fmt::format("{}|{}|{}|{}|{}|{}", kVersion, encoder_->identity(), text_.field, text_.end_of_text, text_.vocab < 65500,
                     template_ ? template_->identity() : "");
}

}    // namespace sheaf
