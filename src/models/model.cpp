#include "models/model.h"

#include "models/loss.h"

namespace sheaf {

Graph build_model(const Json& config, const ModelShape& shape, DType compute, Mode mode, const std::string& where) {
  Graph graph;
  Builder b(graph, Segment::first, compute, mode == Mode::score);
  const ModelConfig parsed = parse_model_config(config, where);
  const ModelValues values = build_decoder(b, parsed, shape);
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
