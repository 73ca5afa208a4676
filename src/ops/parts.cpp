#include "ops/parts.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <map>
#include <mutex>

#include "base/error.h"
#include "base/text.h"
#include "ops/aten.h"

namespace sheaf {
namespace {

// Between separators outside of braces, none of them empty.
std::vector<std::string> pieces(std::string_view text, char separator) {
  std::vector<std::string> out;
  bool inside = false;
  for (std::size_t begin = 0, end = 0; end <= text.size(); ++end) {
    if (end < text.size()) {
      inside = text[end] == '{' || (inside && text[end] != '}');
      if (inside || text[end] != separator) continue;
    }
    if (const std::string_view piece = trimmed(text.substr(begin, end - begin)); !piece.empty()) out.emplace_back(piece);
    begin = end + 1;
  }
  return out;
}

Parts::Part parse_part(std::string_view text) {
  const std::size_t equals = text.find('='), brace = std::min(text.find('{'), text.size());
  const std::string call(trimmed(text.substr(equals + 1, brace - equals - 1)));
  const std::size_t space = call.find(' ');
  Parts::Part part{
      .op = &op(call.substr(0, space)), .out = pieces(text.substr(0, equals), ' '), .in = pieces(call.substr(space + 1), ','), .attrs = {}};
  const std::size_t end = std::min(text.find('}'), text.size());
  std::string_view attrs = text.substr(std::min(brace + 1, end), end - std::min(brace + 1, end));
  if (attrs.find("->") != std::string_view::npos) {
    const std::size_t rule_end = std::min(attrs.find(';'), attrs.size());
    part.attrs.emplace_back("rule", Text(trimmed(attrs.substr(0, rule_end))));
    attrs.remove_prefix(std::min(rule_end + 1, attrs.size()));
  }
  for (const std::string& entry : pieces(attrs, ',')) {
    if (entry.find('=') == std::string::npos) {
      part.attrs.emplace_back(entry, std::nullopt);
      continue;
    }
    const Attrs given = parse_attrs("{" + entry + "}");
    part.attrs.emplace_back(given.entries().front().first, given.entries().front().second);
  }
  SHEAF_CHECK(part.attrs.size() == part.op->attributes.size(), "'{}' does not list the attributes of {}", text, part.op->name);
  return part;
}

Parts parse(std::string_view text) {
  const std::size_t arrow = text.rfind("->");
  SHEAF_CHECK(arrow != std::string_view::npos, "parts without outputs: '{}'", text);
  Parts parts;
  for (const std::string& line : pieces(text.substr(0, arrow), ';')) parts.parts.push_back(parse_part(line));
  parts.outputs = pieces(text.substr(arrow + 2), ' ');
  return parts;
}

DType dtype_of(const at::Tensor& t) {
  for (const DType dtype : {DType::fp32, DType::bf16, DType::fp64, DType::fp16, DType::i64, DType::i32})
    if (scalar_type(dtype) == t.scalar_type()) return dtype;
  SHEAF_CHECK(false, "a part of a fused op has no such dtype");
}

// Rows of experts lie as if there were one expert, [1, 1, rows, ..], also beside tensors that have something for each of them.
void rows_for_all(const Rule& rule, std::vector<Type>& types) {
  for (const std::string& experts : rule.owner) {
    std::optional<std::int64_t> first;
    for (std::size_t i = 0; i < types.size(); ++i)
      if (has(rule.in[i], experts)) {
        std::int64_t& extent = types[i].shape[static_cast<std::size_t>(dim_of(rule.in[i], experts))];
        extent = *(first = first.value_or(extent));
      }
  }
}

}    // namespace

const Parts& parts_of(const OpDef& fused) {
  static std::mutex mutex;
  static std::map<std::string_view, Parts> known;
  const std::lock_guard lock(mutex);
  const auto found = known.find(fused.name);
  return found != known.end() ? found->second : known.emplace(fused.name, parse(fused.parts)).first->second;
}

void run_parts(const OpDef& fused, const Args& args, const RunPart& run, bool integer) {
  const Parts& parts = parts_of(fused);
  std::map<std::string, at::Tensor, std::less<>> tensors;
  for (std::size_t i = 0; i < fused.operands.size(); ++i) tensors.emplace(fused.operands[i], args.in[i]);
  for (const Parts::Part& part : parts.parts) {
    Attrs attrs;
    for (const auto& [name, value] : part.attrs) attrs.set(name, value ? *value : *args.attrs.find(name));
    std::vector<at::Tensor> in, out;
    std::vector<Type> types;
    types.reserve(part.in.size());
    Types in_types;
    for (const std::string& name : part.in) {
      in.push_back(tensors.at(name));
      types.push_back({dtype_of(in.back()), in.back().sizes().vec(), {}, 0});
      in_types.push_back(&types.back());
    }
    const Rule rule = rule_for(*part.op, attrs, in_types);
    rows_for_all(rule, types);
    const std::vector<Type> made = infer(*part.op, attrs, in_types);
    for (std::size_t o = 0; o < made.size(); ++o) {
      const auto output = std::find(parts.outputs.begin(), parts.outputs.end(), part.out[o]);
      const auto index = static_cast<std::size_t>(output - parts.outputs.begin());
      const auto options = in[0].options().dtype(integer ? at::kLong : scalar_type(made[o].dtype));
      out.push_back(output != parts.outputs.end() ? args.out[index] : at::empty(made[o].shape, options));
      tensors.insert_or_assign(part.out[o], out.back());
    }
    run(*part.op, rule, Args{in, out, attrs, args.owner_begin, args.owner_end});
  }
}

}    // namespace sheaf
