#pragma once
// Attention and its gradient by cuDNN, through cudnn-frontend. attention_cudnn.cpp takes long to compile: it is the only file that includes
// it. Sinks enter cuDNN's forward, but with documents attention_sinks.h adds them to what it writes.
#include "ir/op.h"

namespace sheaf {

// bf16 or fp16, head dims that are multiples of 8 up to 128, or 192 of q and k and 128 of v, sinks also in fp32, a window only with a
// causal mask.
bool cudnn_takes_attention(const Attrs& attrs, const Types& in);
bool cudnn_takes_attention_grad(const Attrs& attrs, const Types& in);
// Not with documents for which it would take more than 16 GiB for itself: it sums for every one of them as if that were a row.
bool cudnn_takes_attention_grad_deterministic(const Attrs& attrs, const Types& in);

// A shape for which cuDNN has no plan is a UserError with its message: the first call of a shape builds the plan, the executor's measuring.
void cudnn_attention(const Args& a);
void cudnn_attention_grad(const Args& a);                  // adds dq by atomics: last bits vary from run to run
void cudnn_attention_grad_deterministic(const Args& a);    // about 10 % slower, about nine times the workspace

}    // namespace sheaf
