#include "data/tokens.h"

#include <filesystem>

#include "base/error.h"
#include "base/text.h"
#include "data/megatron.h"
#include "data/text_source.h"

namespace sheaf {

std::unique_ptr<TokenSource> open_tokens(const std::string& path, const TokenOptions& options) {
  SHEAF_CHECK(options.vocab > 0, "vocabulary of {}", options.vocab);
  const std::string ending = std::filesystem::path(path).extension();
  if (ending == ".bin") return std::make_unique<MegatronSource>(path, options.vocab);
  if (ending == ".idx") user_error("{}: is an index; name the .bin file beside it", path);
  if (ending != ".txt" && ending != ".jsonl")
    user_error("{}: unknown kind of corpus {}; wanted .txt, .jsonl, or .bin with its .idx", path, quote(ending));

  if (options.tokenizer.empty())
    user_error("{}: is text, and tokenizers of model folders arrive later; \"data.tokenizer\": \"bytes\" works now, as do .bin/.idx files",
               path);
  if (options.tokenizer != "bytes")
    user_error("{}: is text, and data.tokenizer is {}; \"bytes\" is the one that works now, as do .bin/.idx files", path,
               quote(options.tokenizer));
  if (options.end_of_text < 0 || options.end_of_text >= options.vocab)
    user_error("{}: the end-of-text token {} follows every document, but the model's vocabulary has {} ids", path, options.end_of_text,
               options.vocab);
  if (ending == ".txt") return std::make_unique<TextSource>(path, options);
  return std::make_unique<JsonlSource>(path, options);
}

}    // namespace sheaf
