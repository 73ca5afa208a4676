#pragma once
// The chat template of a model folder: Jinja, rendered by minja the way transformers renders it.
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace sheaf {

// Bytes [begin, end) of a rendered text.
using TextSpan = std::pair<std::size_t, std::size_t>;

struct RenderedChat {
  std::string text;
  std::vector<TextSpan> generated;    // what {% generation %} blocks enclose, in order
};

// Immutable: any number of threads may render at once. Whitespace as in transformers: trim_blocks and lstrip_blocks.
class ChatTemplate {
 public:
  // chat_template.jinja; else chat_template of tokenizer_config.json: a text, or a list of named ones, of which "default" is taken. Null
  // if the folder has neither. bos_token, eos_token and the other special tokens are those of tokenizer_config.json.
  // UserError: it does not parse.
  static std::unique_ptr<ChatTemplate> of_folder(const std::string& folder);
  // `special_tokens`: an object of names and texts. `where` is named in errors.
  ChatTemplate(const std::string& source, const Json& special_tokens, const std::string& where);
  ~ChatTemplate();

  // tools: null if there are none. Throws std::runtime_error with what the template or the renderer says.
  RenderedChat render(const Json& messages, const Json& tools, bool add_generation_prompt) const;

  const std::string& where() const { return where_; }
  const std::string& source() const { return source_; }
  bool marks_generation() const { return marks_generation_; }    // it has {% generation %} blocks
  std::string identity() const;                                  // two templates with the same render the same: for caches

 private:
  struct Impl;
  std::string source_, where_;
  Json special_tokens_;
  bool marks_generation_ = false;
  std::unique_ptr<Impl> impl_;
};

}    // namespace sheaf
