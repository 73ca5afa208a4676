#pragma once
// The update of ops adamw and adamw_split over one flat group, in place: a device kernel and its portable twin, the same operations in the
// same order, in fp32. Weights are fp32 or in two parts; moments, and a gradient, may be bf16.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

struct AdamwSettings {
  float eps, weight_decay;
  bool decoupled;
};

// Step arguments and results, one number each; in device memory for the device kernel. fp32, as the graph has them.
struct AdamwScalars {
  const float *factor, *commit, *lr, *beta1, *beta2, *bias1, *bias2;
};

struct AdamwGradient {
  const void* data;
  FloatType type;
};

struct AdamwMoments {
  void *m, *v;
  FloatType type;
};

// `w`, or, where that is nullptr, the parts of each number (SplitFloat): bits of bf16, and what they leave out.
struct AdamwWeights {
  float* w;
  std::uint16_t* high;
  std::int16_t* low;
};

// Elements [begin, end). Weights, m, v, g do not overlap.
void adamw_portable(AdamwWeights w, AdamwMoments moments, AdamwGradient g, std::int64_t begin, std::int64_t end,
                    const AdamwScalars& scalars, const AdamwSettings& settings);

// cuda/adamw.cu. Nothing but a launch on `stream` (a cudaStream_t); returns the run-time library's error text, nullptr if all is well.
const char* adamw_device(AdamwWeights w, AdamwMoments moments, AdamwGradient g, std::int64_t n, const AdamwScalars& scalars,
                         const AdamwSettings& settings, void* stream);

}    // namespace sheaf
