#include "data/chat_template.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <iomanip>
#include <minja/minja.hpp>
#include <regex>
#include <sstream>
#include <stdexcept>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {
namespace {

namespace fs = std::filesystem;

// Bytes that no UTF-8 text holds, so no message and no template can.
constexpr char kBegin = '\xfe', kEnd = '\xff';

// minja reads {% generation %} and drops it. As a filter of our own it tells where its body went; blocks of either name treat the
// whitespace around them alike.
std::string with_marks(const std::string& source) {
  static const std::regex begin(R"(\{%([-+]?)\s*generation\s*([-+]?)%\})"), end(R"(\{%([-+]?)\s*endgeneration\s*([-+]?)%\})");
  const std::string half = std::regex_replace(source, begin, "{%$1 filter sheaf_generated $2%}");
  return std::regex_replace(half, end, "{%$1 endfilter $2%}");
}

RenderedChat without_marks(const std::string& marked) {
  RenderedChat out;
  std::size_t open = std::string::npos;
  for (const char c : marked) {
    if (c == kBegin && open == std::string::npos)
      open = out.text.size();
    else if (c == kEnd && open != std::string::npos)
      out.generated.emplace_back(open, out.text.size()), open = std::string::npos;
    else if (c == kBegin || c == kEnd)
      throw std::runtime_error("{% generation %} blocks inside one another");
    else
      out.text += c;
  }
  return out;
}

minja::Value strftime_now(const std::shared_ptr<minja::Context>&, minja::ArgumentsValue& args) {
  args.expectArgs("strftime_now", {1, 1}, {0, 0});
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::tm local{};
  ::localtime_r(&now, &local);
  std::ostringstream out;
  out << std::put_time(&local, args.args[0].get<std::string>().c_str());
  return out.str();
}

minja::Value mark_generated(const std::shared_ptr<minja::Context>&, minja::ArgumentsValue& args) {
  args.expectArgs("generation", {1, 1}, {0, 0});
  return kBegin + args.args[0].get<std::string>() + kEnd;
}

// A special token is a text, or an object whose content is.
Json special_tokens_of(const Json& tokenizer_config) {
  Json tokens = Json::object();
  for (const auto& [key, value] : tokenizer_config.items()) {
    if (!key.ends_with("_token")) continue;
    if (value.is_string()) tokens[key] = value;
    if (value.is_object() && value.contains("content") && value["content"].is_string()) tokens[key] = value["content"];
  }
  return tokens;
}

// The template of tokenizer_config.json; "" if it has none.
std::string template_of(const Json& tokenizer_config, const std::string& path) {
  const auto found = tokenizer_config.find("chat_template");
  if (found == tokenizer_config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  std::vector<std::string> names;
  if (found->is_array())
    for (const Json& entry : *found) {
      const bool good = entry.is_object() && entry.value("name", Json()).is_string() && entry.value("template", Json()).is_string();
      if (!good) user_error("{}: chat_template: an entry is not {{\"name\": ..., \"template\": ...}}", path);
      if (entry["name"] == "default") return entry["template"].get<std::string>();
      names.push_back(quote(entry["name"].get<std::string>()));
    }
  if (found->is_array()) user_error("{}: chat_template has no template named 'default'; it has {}", path, join(names, ", "));
  user_error("{}: chat_template is {}; a string, or a list of named templates was wanted", path, json_type(*found));
}

}    // namespace

struct ChatTemplate::Impl {
  std::shared_ptr<minja::TemplateNode> root;
  std::shared_ptr<minja::Context> globals;
};

ChatTemplate::ChatTemplate(const std::string& source, const Json& special_tokens, const std::string& where)
    : source_(source), where_(where), special_tokens_(special_tokens), impl_(std::make_unique<Impl>()) {
  const std::string marked = with_marks(source);
  marks_generation_ = marked != source;
  try {
    impl_->root = minja::Parser::parse(marked, {.trim_blocks = true, .lstrip_blocks = true, .keep_trailing_newline = false});
  } catch (const std::exception& error) {
    const std::string what = error.what();
    user_error("{}: the chat template does not parse: {}", where, what.substr(0, what.find('\n')));
  }
  impl_->globals = minja::Context::builtins();
  impl_->globals->set("strftime_now", minja::Value::callable(strftime_now));
  impl_->globals->set("sheaf_generated", minja::Value::callable(mark_generated));
}
ChatTemplate::~ChatTemplate() = default;

std::unique_ptr<ChatTemplate> ChatTemplate::of_folder(const std::string& folder) {
  const std::string config_path = fs::path(folder) / "tokenizer_config.json", jinja_path = fs::path(folder) / "chat_template.jinja";
  std::error_code ignored;
  const Json config = fs::exists(config_path, ignored) ? read_json(config_path) : Json::object();
  if (!config.is_object()) user_error("{}: is {}, an object was wanted", config_path, json_type(config));
  const bool own_file = fs::exists(jinja_path, ignored);
  const std::string source = own_file ? read_file(jinja_path) : template_of(config, config_path);
  if (source.empty()) return nullptr;
  return std::make_unique<ChatTemplate>(source, special_tokens_of(config), own_file ? jinja_path : config_path);
}

std::string ChatTemplate::identity() const { return special_tokens_.dump() + source_; }

RenderedChat ChatTemplate::render(const Json& messages, const Json& tools, bool add_generation_prompt) const {
  Json values = special_tokens_;
  values["messages"] = messages;
  values["add_generation_prompt"] = add_generation_prompt;
  if (!tools.is_null()) values["tools"] = tools;
  const auto context = minja::Context::make(minja::Value(values), impl_->globals);
  return without_marks(impl_->root->render(context));
}

}    // namespace sheaf
