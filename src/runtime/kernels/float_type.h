#pragma once

namespace sheaf {

// Numbers that device kernels read and write; they compute in fp32. fp16: where a kernel says that it does.
enum class FloatType { fp32, bf16, fp16 };

}    // namespace sheaf
