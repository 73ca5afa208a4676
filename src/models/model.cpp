#include "models/model.h"

#include "models/loss.h"

namespace sheaf {

Graph build_model(const Json& config, const ModelShape& shape, DType compute, Mode mode, const std::string& where) {
  Graph graph;
  Builder b(graph, Segment::first, compute, mode == Mode::score);
  const ModelValues values = build_dense(b, parse_model_config(config, where), shape);    // every family so far is dense
  mode == Mode::train ? write_mean_loss(b, values.nll) : write_scores(b, values.nll);
  return graph;
}

}    // namespace sheaf
