#include "runtime/device_info.h"

#include <torch/headeronly/version.h>

#include <algorithm>

#include "base/text.h"
#ifdef SHEAF_CUDA
#include <cuda_runtime.h>
#endif

namespace sheaf {

std::string libtorch_version() { return TORCH_VERSION; }

bool cuda_build() {
#ifdef SHEAF_CUDA
  return true;
#else
  return false;
#endif
}

std::int64_t gpu_bytes() {
  std::int64_t least = 0;
#ifdef SHEAF_CUDA
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return 0;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    const auto bytes = static_cast<std::int64_t>(p.totalGlobalMem);
    least = least == 0 ? bytes : std::min(least, bytes);
  }
#endif
  return least;
}

std::vector<std::string> gpu_descriptions() {
  std::vector<std::string> out;
#ifdef SHEAF_CUDA
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) return out;
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp p;
    if (cudaGetDeviceProperties(&p, i) != cudaSuccess) continue;
    out.push_back(fmt::format("{}, {}, compute {}.{}", p.name, human_bytes(static_cast<double>(p.totalGlobalMem)), p.major, p.minor));
  }
#endif
  return out;
}

}    // namespace sheaf
