#pragma once

namespace sheaf {

// Numbers that device kernels read and write; they compute in fp32.
enum class FloatType { fp32, bf16 };

}    // namespace sheaf
