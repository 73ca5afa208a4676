#pragma once
// A conversation as tokens, and which of them count for the loss: those of the assistant's turns, and no others.
#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/chat_template.h"
#include "data/encoder.h"

namespace sheaf {

// Where the assistant's turns are in the rendered conversation, in order. A turn is what the model has to write: what follows the
// generation prompt, with the token that ends the turn. If the template has {% generation %} blocks, it is what they enclose. Otherwise it
// is found by rendering the conversation up to the turn, with and without it, and by rendering it with other words in the place of the
// turn's own. UserError where the template renders a turn in such a way that its place is not certain.
class TurnFinder {
 public:
  TurnFinder(const ChatTemplate& chat_template, const Encoder& encoder, const Json& messages, const Json& tools, std::string where);
  const std::string& text() const { return whole_.text; }
  std::vector<TextSpan> turns() const;

 private:
  RenderedChat render(const Json& messages, bool add_generation_prompt) const;
  // The conversation up to message i, i included, or all of it; the content of i replaced by a word that no template knows.
  std::string with_word(std::size_t i, bool whole, const char* word) const;
  TextSpan place_of_turn(std::size_t i) const;
  std::string leading_special_token(std::string_view rest) const;    // the token's text; "": `rest` begins with none
  [[noreturn]] void uncertain(std::size_t i, const char* what) const;

  const ChatTemplate& template_;
  const Encoder& encoder_;
  const Json& messages_;
  const Json& tools_;
  std::string where_;
  RenderedChat whole_;
};

// Immutable: any number of threads may encode at once.
class ChatEncoder {
 public:
  // Keeps references.
  ChatEncoder(const ChatTemplate& chat_template, const Encoder& encoder) : template_(chat_template), encoder_(encoder) {}

  // Appends the ids of the rendered conversation, as encoded in one piece, and for each 1 if it counts. A token that lies across the
  // border of a turn counts. `where` (FILE:LINE) is named in errors. UserError: messages that are none, or that the template refuses.
  void encode(const Json& messages, const Json& tools, const std::string& where, std::vector<std::int32_t>& ids,
              std::vector<std::uint8_t>& counts) const;

 private:
  const ChatTemplate& template_;
  const Encoder& encoder_;
};

}    // namespace sheaf
