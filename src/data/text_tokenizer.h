#pragma once
// What one model does to text: its encoder, its chat template, its end-of-text token.
#include <memory>
#include <string>

#include "data/chat.h"
#include "data/encoder.h"
#include "data/tokenize.h"
#include "data/tokens.h"

namespace sheaf {

class TextTokenizer {
 public:
  // UserError, which names `path`, the text at hand: no tokenizer, one with more ids than the model, no end-of-text token.
  TextTokenizer(const TokenOptions& options, const std::string& path);

  const TextOptions& options() const { return text_; }
  std::string identity() const;    // two with the same give the same tokens: for caches

 private:
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<ChatTemplate> template_;
  std::unique_ptr<ChatEncoder> chat_;
  TextOptions text_;
};

}    // namespace sheaf
