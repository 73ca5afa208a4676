#include "mesh/rule.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

static Rule::Factors words(std::string_view text) {
  Rule::Factors out;
  for (const std::string& word : split(trimmed(text), ' '))
    if (!word.empty() && word != "()") out.push_back(word);
  return out;
}

static std::vector<Rule::Factors> lists(std::string_view text) {
  std::vector<Rule::Factors> out;
  for (const std::string& part : split(text, ',')) out.push_back(words(part));
  return out;
}

Rule Rule::parse(std::string_view text) {
  Rule rule;
  const auto clauses = split(text, ';');
  const std::string body = clauses.empty() ? "" : clauses[0];
  const std::size_t arrow = body.find("->");
  SHEAF_CHECK(arrow != std::string::npos, "rule '{}' has no '->'", text);
  rule.in = trimmed(std::string_view(body).substr(0, arrow)).empty() ? std::vector<Factors>{} : lists(body.substr(0, arrow));
  if (!trimmed(std::string_view(body).substr(arrow + 2)).empty()) rule.out = lists(body.substr(arrow + 2));
  for (std::size_t i = 1; i < clauses.size(); ++i) {
    auto list = words(clauses[i]);
    SHEAF_CHECK(list.size() >= 2, "rule '{}': clause '{}' names nothing", text, clauses[i]);
    const std::string kind = list[0];
    list.erase(list.begin());
    if (kind == "full")
      rule.full.insert(list.begin(), list.end());
    else if (kind == "owner")
      rule.owner.insert(list.begin(), list.end());
    else if (kind == "linear")
      rule.linear = list;
    else if (kind == "add")
      rule.add = list;
    else if (kind == "reduce")
      rule.reduction = list[0] == "max" ? Reduction::max : list[0] == "min" ? Reduction::min : Reduction::sum;
    else
      SHEAF_CHECK(false, "rule '{}': unknown clause '{}'", text, kind);
  }
  return rule;
}

std::string Rule::print() const {
  const auto side = [](const std::vector<Factors>& values) {
    std::vector<std::string> parts;
    for (const Factors& factors : values) parts.push_back(factors.empty() ? "()" : join(factors, " "));
    return join(parts, ", ");
  };
  std::string text = side(in) + " -> " + side(out);
  const auto clause = [&](std::string_view kind, const std::vector<std::string>& names) {
    if (!names.empty()) text += fmt::format("; {} {}", kind, join(names, " "));
  };
  clause("full", {full.begin(), full.end()});
  clause("owner", {owner.begin(), owner.end()});
  clause("linear", linear);
  clause("add", add);
  if (reduction == Reduction::max) text += "; reduce max";
  if (reduction == Reduction::min) text += "; reduce min";
  return text;
}

Rule expanded(const Rule& rule, const std::vector<std::size_t>& in_ndims, std::string_view op) {
  if (rule.in.size() != in_ndims.size()) user_error("{}: takes {} operands, {} were given", op, rule.in.size(), in_ndims.size());
  const auto has_dots = [](const Rule::Factors& f) { return has(f, ".."); };
  std::size_t num_dots = 0, from = rule.in.size();
  for (std::size_t i = 0; i < rule.in.size(); ++i) {
    const std::size_t wanted = rule.in[i].size() - has_dots(rule.in[i]);
    if (has_dots(rule.in[i]) ? in_ndims[i] < wanted : in_ndims[i] != wanted)
      user_error("{}: input {} has {} dims, the rule '{}' wants {}", op, i, in_ndims[i], join(rule.in[i], " "), wanted);
    if (!has_dots(rule.in[i])) continue;
    const std::size_t n = in_ndims[i] - wanted;
    if (from == rule.in.size()) num_dots = n, from = i;
    if (n != num_dots) user_error("{}: '..' is {} dims in input {} but {} dims in input {}", op, num_dots, from, n, i);
  }
  Rule out = rule;
  for (auto* side : {&out.in, &out.out})
    for (Rule::Factors& factors : *side)
      if (const auto dots = std::find(factors.begin(), factors.end(), ".."); dots != factors.end()) {
        Rule::Factors names;
        for (std::size_t d = 0; d < num_dots; ++d) names.push_back(fmt::format("..{}", d));
        factors.insert(factors.erase(dots), names.begin(), names.end());
      }
  return out;
}

std::int64_t Extents::operator[](std::string_view factor) const {
  for (const auto& [name, extent] : of)
    if (name == factor) return extent;
  SHEAF_CHECK(false, "factor '{}' has no extent: no operand carries it", factor);
}

Extents extents(const Rule& rule, const std::vector<Shape>& in_shapes, std::string_view op) {
  Extents out;
  struct Seen {
    std::size_t input, dim;
  };
  std::vector<Seen> seen;
  for (std::size_t i = 0; i < rule.in.size(); ++i)
    for (std::size_t d = 0; d < rule.in[i].size(); ++d) {
      const std::string& factor = rule.in[i][d];
      const auto found = std::find_if(out.of.begin(), out.of.end(), [&](const auto& entry) { return entry.first == factor; });
      if (found == out.of.end()) {
        out.of.emplace_back(factor, in_shapes[i][d]);
        seen.push_back({i, d});
      } else if (found->second != in_shapes[i][d]) {
        const Seen& first = seen[static_cast<std::size_t>(found - out.of.begin())];
        user_error("{}: factor {} is {} in input {} (dim {}) but {} in input {} (dim {})", op, quote(factor), found->second, first.input,
                   first.dim, in_shapes[i][d], i, d);
      }
    }
  return out;
}

Shape shape_of(const Rule::Factors& factors, const Extents& extents) {
  Shape shape;
  for (const std::string& factor : factors) shape.push_back(extents[factor]);
  return shape;
}

std::int64_t dim_of(const Rule::Factors& factors, std::string_view factor) {
  return std::find(factors.begin(), factors.end(), factor) - factors.begin();
}
bool has(const Rule::Factors& factors, std::string_view factor) { return dim_of(factors, factor) < std::ssize(factors); }

double product_flops(const Rule& rule, const Extents& extents) {
  double flops = 1;
  bool summed = false;
  for (const auto& [factor, extent] : extents.of) {
    flops *= static_cast<double>(extent);
    summed |= !rule.out.empty() && !has(rule.out[0], factor);
  }
  return summed && rule.in.size() > 1 ? 2 * flops : flops;
}

}    // namespace sheaf
