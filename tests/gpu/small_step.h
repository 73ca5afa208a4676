#pragma once
// A small model and some steps of its training, for tests of whole steps.
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "gpu/gpu.h"
#include "runtime/executor.h"

namespace sheaf::testing {

// Embedding, one attention block, experts if wanted, norm, head, cross-entropy, AdamW.
struct SmallModel {
  DType compute = DType::bf16;
  bool experts = false;
  bool documents = false;    // three a row, and a rest; with biases and rotations
  std::int64_t micro_batches = 2;
  bool bf16_gradients = false;
};
Graph step_graph(const SmallModel& model);

struct TrainSmall {
  SmallModel model = {};
  DeviceKind device = DeviceKind::cuda;
  bool deterministic = true;
  int steps = 3;
  std::optional<bool> cuda_graphs = false;
  int timed_step = 0;    // whose calls are timed; 0: none
};
struct Trained {
  std::vector<double> losses, norms;           // by step
  std::map<std::string, at::Tensor> states;    // after the last step, on the host
  std::int64_t stray = 0;                      // allocations on the GPU after the first step
  double seconds = 0;                          // of the last step
  std::string graphs;                          // Executor::graphs
};
Trained train(const TrainSmall& options);
// Losses, norms and all states, bit for bit.
void expect_same_bits(const Trained& a, const Trained& b);

}    // namespace sheaf::testing
