#include "runtime/kernels/cuda/packed.h"
#include "runtime/kernels/routed.h"

namespace sheaf {
namespace {

__global__ void __launch_bounds__(kBlock) invert(std::int32_t* __restrict__ row, const std::int32_t* __restrict__ slot, std::int64_t rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < rows && slot[r] >= 0) row[slot[r]] = std::int32_t(r);
}

// Of a block x goes along a token, y through tokens.
__global__ void __launch_bounds__(kBlock) scatter(uint4* __restrict__ rows, const uint4* __restrict__ x, Tokens tokens, int chunks) {
  const std::int64_t token = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (token >= tokens.count) return;
  const std::int32_t* const row = tokens.row + token * tokens.choices;
  for (int c = threadIdx.x; c < chunks; c += blockDim.x) {
    const uint4 v = x[token * chunks + c];
    for (int k = 0; k < tokens.choices; ++k)
      if (const std::int64_t r = row[k]; r >= 0) rows[r * chunks + c] = v;
  }
}

constexpr int kInFlight = 8;    // rows that a thread has asked for before it adds the first

template <class T>
__global__ void __launch_bounds__(kBlock) gather_sum(T* __restrict__ y, const T* __restrict__ rows, Tokens tokens, int d) {
  const std::int64_t token = std::int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (token >= tokens.count) return;
  const std::int32_t* const row = tokens.row + token * tokens.choices;
  const int choices = int(tokens.choices);
  constexpr int n = kPacked<T>;
  for (int at = threadIdx.x * n; at < d; at += blockDim.x * n) {
    float sum[n] = {};
    for (int first = 0; first < choices; first += kInFlight) {
      uint4 packed[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const std::int64_t r = first + u < choices ? row[first + u] : -1;
        packed[u] = r >= 0 ? load_packed(rows + r * d + at) : make_uint4(0, 0, 0, 0);    // + 0 changes nothing
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        float v[n];
        unpack<T>(v, packed[u]);
#pragma unroll
        for (int i = 0; i < n; ++i) sum[i] += v[i];
      }
    }
    store_packed(pack<T>(sum), y + token * d + at);
  }
}

template <class T>
__global__ void __launch_bounds__(kBlock)
    gather_numbers(T* __restrict__ rows, const T* __restrict__ w, const std::int32_t* __restrict__ slot, std::int64_t num_rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < num_rows) rows[r] = w[slot[r]];
}
template <class T>
__global__ void __launch_bounds__(kBlock)
    scatter_numbers(T* __restrict__ w, const T* __restrict__ rows, const std::int32_t* __restrict__ slot, std::int64_t num_rows) {
  const std::int64_t r = std::int64_t(blockIdx.x) * kBlock + threadIdx.x;
  if (r < num_rows) w[slot[r]] = rows[r];
}

}    // namespace

const char* rows_of_slots_device(std::int32_t* row, const std::int32_t* slot, std::int64_t rows, void* stream) {
  if (rows == 0) return nullptr;
  invert<<<num_blocks(rows, kBlock), kBlock, 0, stream_of(stream)>>>(row, slot, rows);
  return launch_error();
}

const char* dispatch_device(void* rows, const void* x, const Tokens& tokens, std::int64_t row_bytes, void* stream) {
  const std::int64_t chunks = row_bytes / 16;
  if (tokens.count == 0 || chunks == 0) return nullptr;
  const dim3 block = block_for(chunks);
  scatter<<<num_blocks(tokens.count, block.y), block, 0, stream_of(stream)>>>(static_cast<uint4*>(rows), static_cast<const uint4*>(x),
                                                                              tokens, static_cast<int>(chunks));
  return launch_error();
}

const char* combine_device(void* y, const void* rows, FloatType type, const Tokens& tokens, std::int64_t d, void* stream) {
  if (tokens.count == 0 || d == 0) return nullptr;
  const dim3 block = block_for(accesses(type, d));
  const unsigned blocks = num_blocks(tokens.count, block.y);
  if (type == FloatType::fp32)
    gather_sum<<<blocks, block, 0, stream_of(stream)>>>(static_cast<float*>(y), static_cast<const float*>(rows), tokens,
                                                        static_cast<int>(d));
  else
    gather_sum<<<blocks, block, 0, stream_of(stream)>>>(static_cast<std::uint16_t*>(y), static_cast<const std::uint16_t*>(rows), tokens,
                                                        static_cast<int>(d));
  return launch_error();
}

const char* dispatch_weights_device(void* rows, const void* w, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                    void* stream) {
  if (num_rows == 0) return nullptr;
  const unsigned blocks = num_blocks(num_rows, kBlock);
  if (bytes == 4)
    gather_numbers<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<std::uint32_t*>(rows), static_cast<const std::uint32_t*>(w), slot,
                                                             num_rows);
  else
    gather_numbers<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<std::uint16_t*>(rows), static_cast<const std::uint16_t*>(w), slot,
                                                             num_rows);
  return launch_error();
}

const char* combine_weights_device(void* w, const void* rows, const std::int32_t* slot, std::int64_t num_rows, std::int64_t bytes,
                                   void* stream) {
  if (num_rows == 0) return nullptr;
  const unsigned blocks = num_blocks(num_rows, kBlock);
  if (bytes == 4)
    scatter_numbers<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<std::uint32_t*>(w), static_cast<const std::uint32_t*>(rows), slot,
                                                              num_rows);
  else
    scatter_numbers<<<blocks, kBlock, 0, stream_of(stream)>>>(static_cast<std::uint16_t*>(w), static_cast<const std::uint16_t*>(rows), slot,
                                                              num_rows);
  return launch_error();
}

}    // namespace sheaf
