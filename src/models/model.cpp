#include "models/model.h"

namespace sheaf {

Graph build_model(const Json& config, const ModelShape& shape, DType compute, const std::string& where) {
  Graph graph;
  Builder b(graph, Segment::first, compute);
  build_dense(b, parse_model_config(config, where), shape);    // every family so far is dense
  return graph;
}

}    // namespace sheaf
