#include "models/model.h"

#include "base/error.h"
#include "base/text.h"
#include "models/loss.h"

namespace sheaf {

// * stands for any characters.
static bool matches(std::string_view pattern, std::string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern[0] != '*') return !name.empty() && pattern[0] == name[0] && matches(pattern.substr(1), name.substr(1));
  return matches(pattern.substr(1), name) || (!name.empty() && matches(pattern, name.substr(1)));
}

Graph build_model(const Json& config, const ModelShape& shape, DType compute, Mode mode, const std::string& where,
                  const std::vector<std::string>& frozen) {
  Graph graph;
  Builder b(graph, Segment::first, compute, mode == Mode::score);
  const ModelConfig parsed = parse_model_config(config, where);
  std::vector<bool> used(frozen.size());
  std::vector<std::string> names;
  b.freeze(
      [&](std::string_view name) {
        names.emplace_back(name);
        bool any = false;
        for (std::size_t i = 0; i < frozen.size(); ++i)
          if (matches(frozen[i], name)) any = used[i] = true;
        return any;
      },
      size_bytes(parsed.dtype) > size_bytes(compute) ? parsed.dtype : compute);
  const ModelValues values = build_decoder(b, parsed, shape);
  for (std::size_t i = 0; i < frozen.size(); ++i)
    if (!used[i]) user_error("run.freeze: {} matches no parameter{}", quote(frozen[i]), did_you_mean(frozen[i], names));
  if (mode == Mode::train) {
    write_mean_loss(b, values.nll);
    if (const Value aux = write_aux_loss(b, parsed, values)) b.step_sum("aux_sum", aux);
    write_expert_load(b, values);
  } else {
    write_scores(b, values.nll);
  }
  return graph;
}

}    // namespace sheaf
