#pragma once
// The section `decoder`: from tokens back to text.
#include <string>
#include <vector>

#include "data/tokenizer/json_node.h"
#include "data/tokenizer/regex.h"

namespace sheaf {

class Decoder {
 public:
  Decoder() = default;                       // tokens with a space between
  explicit Decoder(const JsonNode& node);    // throws UserError

  std::string run(std::vector<std::string> tokens) const;

 private:
  enum class Kind { byte_level, metaspace, byte_fallback, fuse, replace_text, replace_regex, strip };
  struct Step {
    Kind kind;
    std::string pattern, content;
    std::shared_ptr<const Regex> regex;
    std::size_t start = 0, stop = 0;    // of Strip
    bool prepends = false;              // of Metaspace
  };
  void add(const JsonNode& node, int depth);
  static void apply(const Step& step, std::vector<std::string>& tokens);

  bool present_ = false;
  std::vector<Step> steps_;
};

}    // namespace sheaf
