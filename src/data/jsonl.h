#pragma once
// One line of a JSONL corpus: a text, or a conversation.
#include <string>
#include <string_view>

#include "base/json.h"

namespace sheaf {

struct JsonlDocument {
  std::string text;
  Json messages;    // not null: a conversation, and `text` is empty
  Json tools;       // of a conversation; null: none
};

// `field` holds a string (a text) or a list (the messages of a conversation). "": `text` or `messages`, whichever is there.
// `where` is FILE:LINE. UserError: not JSON, no object, no such field or both, a value of another type.
JsonlDocument parse_jsonl_line(std::string_view line, const std::string& field, const std::string& where);

}    // namespace sheaf
