#include "runtime/kernels/document_offsets.h"
#include "runtime/kernels/gpu.h"

namespace sheaf {
namespace {

__global__ void write(std::int32_t* __restrict__ lengths, std::int64_t* __restrict__ offsets, const std::int32_t* __restrict__ ends,
                      DocumentOffsets d) {
  const std::int64_t n = d.b * (d.c + 1), i = std::int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i > n) return;
  const std::int64_t row = i / (d.c + 1), place = i % (d.c + 1);
  std::int64_t begin = i == n ? 0 : place == 0 ? 0 : ends[row * d.c + place - 1];
  if (i < n) lengths[i] = std::int32_t((place == d.c ? d.s : ends[row * d.c + place]) - begin);
  for (int w = 0; w < kOffsetWidths; ++w) offsets[w * (n + 1) + i] = (row * d.s + begin) * d.widths[w];
}

}    // namespace

const char* document_offsets_device(std::int32_t* lengths, std::int64_t* offsets, const std::int32_t* ends, const DocumentOffsets& shape,
                                    void* stream) {
  constexpr int kThreads = 256;
  const std::int64_t entries = shape.b * (shape.c + 1) + 1;
  write<<<static_cast<unsigned>((entries + kThreads - 1) / kThreads), kThreads, 0, stream_of(stream)>>>(lengths, offsets, ends, shape);
  return launch_error();
}

}    // namespace sheaf
