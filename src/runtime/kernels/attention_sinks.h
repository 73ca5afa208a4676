#pragma once
// Device kernels that turn attention without sinks into attention with them, and the gradient of the sinks: raw pointers and a stream, one
// pass over memory each, sums in fp32 and in a fixed order. A sink is one more logit of its head whose value is 0, so it only scales o, and
// a gradient kernel that knows of no sinks gives dq, dk and dv when it reads o and lse as they are with them.
#include <cstdint>

#include "runtime/kernels/float_type.h"

namespace sheaf {

// o and dy [rows, heads, e] in bf16 or fp16, e a multiple of 8 up to 2048, they begin on 16 bytes; lse [rows, heads] in fp32; sinks [heads]
// in fp32 or the type of o. Nothing is empty.
struct SinkRows {
  std::int64_t rows, heads, e;
  FloatType type, sink_type;
};

// In place: lse' = log(exp(lse) + exp(sink)), o' = o exp(lse - lse'). Returns the run-time library's error text, nullptr if all is well.
const char* attention_sinks_device(void* o, float* lse, const void* sinks, const SinkRows& shape, void* stream);

// dsinks [heads] = -sum over rows of exp(sink - lse) (sum over e of dy o), o and lse being those with sinks, by way of
// parts [heads, attention_sinks_parts(shape)]: the same bits on every call. Returns as above.
std::int64_t attention_sinks_parts(const SinkRows& shape);
const char* attention_sinks_grad_device(float* dsinks, float* parts, const void* dy, const void* o, const float* lse, const void* sinks,
                                        const SinkRows& shape, void* stream);

}    // namespace sheaf
