#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace sheaf {

std::string libtorch_version();
bool cuda_build();
std::int64_t gpu_bytes();                       // memory of the smallest; 0 without any
std::vector<std::string> gpu_descriptions();    // "NVIDIA H200, 139.8 GiB, compute 9.0"; empty without CUDA

}    // namespace sheaf
