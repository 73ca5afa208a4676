#pragma once

namespace sheaf {

// Numbers that device kernels read and write; they compute in fp32. fp16: those of logits only (cross_entropy.h).
enum class FloatType { fp32, bf16, fp16 };

}    // namespace sheaf
