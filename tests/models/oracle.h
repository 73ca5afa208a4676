#pragma once
// A fixture of tests/oracle/make_oracle.py, and our step run on it by the interpreter.
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "models/model.h"
#include "runtime/interpret.h"

namespace sheaf::testing {

using Tensors = std::map<std::string, at::Tensor>;
Tensors read_tensors(const std::string& path);    // F32 and I64 of one .safetensors file

struct Fixture {
  std::string folder;    // .cache/oracle/NAME
  Json config;
  Tensors model, oracle;
};
Fixture read_fixture(const std::string& name);

struct RouterResult {
  at::Tensor scores;    // that experts are chosen by, the bias added: fp32 [b, s, e]
  at::Tensor chosen;    // i32 [b, s, k]
};

// What one step yields.
struct StepResult {
  at::Tensor logits;    // of the last micro-batch
  Tensors gradients;    // in HF's shapes
  double loss, grad_norm, commit;
  std::int64_t tokens;
  std::vector<RouterResult> routers;    // of each layer with experts; of the last micro-batch
};
struct StepOptions {
  std::int64_t num_micro_batches = 1;
  DType compute = DType::fp32;
  bool replay = false;    // tokens go where HF's went
};
// All passes of a training step that the interpreter can run.
StepResult run_step(const Fixture& fixture, const StepOptions& options = {});

double relative_error(const at::Tensor& a, const at::Tensor& b);    // |a - b| / |b| in the 2-norm, in fp64

}    // namespace sheaf::testing
