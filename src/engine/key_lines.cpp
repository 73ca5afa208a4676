#include "engine/key_lines.h"

#include <vector>

namespace sheaf {
namespace {

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  std::map<std::string, int> run() {
    while (at_ < text_.size()) step();
    return std::move(lines_);
  }

 private:
  struct Level {
    bool list;
    std::string prefix;    // "a.b." for keys inside
    std::string key;       // the one whose value is being read
  };

  void step() {
    const char c = text_[at_];
    if (text_.substr(at_, 2) == "//") return skip_past("\n");
    if (text_.substr(at_, 2) == "/*") return skip_past("*/");
    if (c == '"') return string();
    if (c == '{' || c == '[') open(c == '[');
    if ((c == '}' || c == ']') && !levels_.empty()) levels_.pop_back();
    if (c == ',' && !levels_.empty()) levels_.back().key.clear();
    if (c == '\n') ++line_;
    ++at_;
  }

  void open(bool list) {
    const bool inside_list = !levels_.empty() && (levels_.back().list || levels_.back().prefix == kHidden);
    const std::string prefix = inside_list ? kHidden : levels_.empty() ? "" : levels_.back().prefix + levels_.back().key + ".";
    levels_.push_back({list, prefix, ""});
  }

  // A string is a key if its object waits for one.
  void string() {
    const std::size_t begin = ++at_;
    while (at_ < text_.size() && text_[at_] != '"') at_ += text_[at_] == '\\' ? 2 : 1;
    const std::string_view content = text_.substr(begin, at_ - begin);
    ++at_;
    if (levels_.empty() || levels_.back().list || !levels_.back().key.empty()) return;
    levels_.back().key = content;
    if (levels_.back().prefix != kHidden) lines_.emplace(levels_.back().prefix + levels_.back().key, line_);
  }

  void skip_past(std::string_view end) {
    const std::size_t found = text_.find(end, at_ + 2);
    const std::size_t next = found == std::string_view::npos ? text_.size() : found + end.size();
    for (; at_ < next; ++at_) line_ += text_[at_] == '\n';
  }

  static constexpr const char* kHidden = "[].";    // prefix of everything inside a list

  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Level> levels_;
  std::map<std::string, int> lines_;
};

}    // namespace

std::map<std::string, int> key_lines(std::string_view text) { return Scanner(text).run(); }

}    // namespace sheaf
