#include <algorithm>

#include "base/error.h"
#include "ir/op.h"

namespace sheaf {

Rule rule_for(const OpDef& op, const Attrs& attrs, const Types& in) {
  std::vector<std::size_t> ndims;
  for (const Type* type : in)
    if (type) ndims.push_back(type->shape.size());
  Rule rule = op.rule_of ? Rule::parse(op.rule_of(attrs, in)) : Rule::parse(op.rule);
  if (!op.rule_of)
    for (std::size_t i = in.size(); i-- > 0;)
      if (!in[i] && i < rule.in.size()) rule.in.erase(rule.in.begin() + static_cast<std::ptrdiff_t>(i));
  return expanded(rule, ndims, op.name);
}

static Extents extents_for(const Rule& rule, const OpDef& op, const Attrs& attrs, const Types& in) {
  std::vector<Shape> shapes;
  for (const Type* type : in)
    if (type) shapes.push_back(type->shape);
  Extents result = extents(rule, shapes, op.name);
  if (op.extent_of)
    for (const Rule::Factors& factors : rule.out)
      for (const std::string& factor : factors)
        if (std::none_of(result.of.begin(), result.of.end(), [&](const auto& e) { return e.first == factor; }))
          result.of.emplace_back(factor, op.extent_of(factor, attrs, in));
  return result;
}

// An output keeps the routing of an operand whose three leading factors lead it too.
static std::int64_t routed_as(const Rule& rule, const Rule::Factors& out, const Types& in) {
  std::size_t p = 0;
  for (const Type* type : in) {
    if (!type) continue;
    const Rule::Factors& factors = rule.in[p++];
    if (type->routed && out.size() >= 3 && std::equal(factors.begin(), factors.begin() + 3, out.begin())) return type->routed;
  }
  return 0;
}

constexpr std::string_view kKinds[] = {"true or false", "an integer", "a number", "a text"};    // as Attr

std::vector<Type> infer(const OpDef& op, const Attrs& attrs, const Types& in) {
  for (const auto& [name, value] : attrs.entries())
    if (std::find(op.attributes.begin(), op.attributes.end(), name) == op.attributes.end())
      user_error("{}: has no attribute '{}'", op.name, name);
  for (std::size_t i = 0; i < op.attributes.size(); ++i) {
    const Attr* attr = attrs.find(op.attributes[i]);
    if (!attr) user_error("{}: attribute '{}' is missing", op.name, op.attributes[i]);
    if (attr->index() != op.attribute_types[i].index())
      user_error("{}: attribute {} is not {}", op.name, print(Attrs{{std::string(op.attributes[i]), *attr}}),
                 kKinds[op.attribute_types[i].index()]);
  }
  const Rule rule = rule_for(op, attrs, in);
  const Extents all = extents_for(rule, op, attrs, in);
  std::vector<Type> out;
  for (std::size_t i = 0; i < rule.out.size(); ++i) {
    const DType dtype = op.dtype ? op.dtype(attrs, in, i) : in.empty() || !in[0] ? DType::fp32 : in[0]->dtype;
    out.push_back({dtype, shape_of(rule.out[i], all), {}, op.routed ? op.routed(attrs, in) : routed_as(rule, rule.out[i], in)});
  }
  return out;
}

double flops(const OpDef& op, const Attrs& attrs, const Types& in) {
  if (op.flops) return op.flops(attrs, in);
  const Rule rule = rule_for(op, attrs, in);
  Extents all = extents_for(rule, op, attrs, in);
  std::size_t p = 0;
  for (const Type* type : in) {    // of the experts, every token meets those that were chosen for it
    if (!type) continue;
    const Rule::Factors& factors = rule.in[p++];
    if (type->routed)
      for (auto& [factor, extent] : all.of)
        if (factor == factors[0]) extent = std::min(extent, type->routed);
  }
  return product_flops(rule, all);
}

std::pair<std::int64_t, std::int64_t> owned_piece(const Rule& rule, const Types& in, const Types& out, const Mesh& mesh,
                                                  std::int64_t rank) {
  if (rule.owner.empty()) return {0, 0};
  for (const auto& [types, factors] : {std::pair(&in, &rule.in), std::pair(&out, &rule.out)}) {
    std::size_t p = 0;
    for (const Type* type : *types) {
      if (!type) continue;
      const Rule::Factors& of = (*factors)[p++];
      for (std::size_t d = 0; d < of.size(); ++d)
        if (rule.owner.contains(of[d])) return local_box(type->shape, type->placement, mesh, rank)[d];
    }
  }
  return {0, 0};
}

double bytes(const std::vector<Type>& out, const Types& in) {
  double total = 0;
  for (const Type& type : out) total += static_cast<double>(type.bytes());
  for (const Type* type : in)
    if (type) total += static_cast<double>(type->bytes());
  return total;
}

bool is_move(const OpDef& op) {
  constexpr std::string_view kMoves[] = {"reshard", "all_gather", "all_reduce", "all_to_all", "reduce_scatter", "slice", "to_partial"};
  return std::find(std::begin(kMoves), std::end(kMoves), op.name) != std::end(kMoves);
}

bool exchanges_rows(const OpDef& op) { return op.name.starts_with("exchange_"); }

bool is_elementwise(const OpDef& op) {
  if (op.rule_of || op.extent_of) return false;
  const Rule rule = Rule::parse(op.rule);
  const auto flat = [](const Rule::Factors& f) { return f.empty() || (f.size() == 1 && f[0] == ".."); };
  return !rule.is_full("..") && std::all_of(rule.in.begin(), rule.in.end(), flat) && std::all_of(rule.out.begin(), rule.out.end(), flat);
}

bool is_elementwise(const Rule& rule) {
  const Rule::Factors* tensor = nullptr;
  for (const auto* side : {&rule.in, &rule.out})
    for (const Rule::Factors& factors : *side) {
      if (factors.empty()) continue;
      if (tensor && factors != *tensor) return false;
      tensor = &factors;
    }
  return tensor && rule.owner.empty() &&
         std::none_of(tensor->begin(), tensor->end(), [&](const std::string& f) { return rule.is_full(f); });
}

}    // namespace sheaf
