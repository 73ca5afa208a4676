#pragma once
// Matrix products by cuBLASLt, with an algorithm for every kind of product: the library's first guess, or the fastest of its first guesses
// as measured. For files of this folder.
#include <library_types.h>

#include <compare>
#include <cstdint>

#include "runtime/gpu_scratch.h"

struct CUstream_st;

namespace sheaf {

// A matrix in memory: lines of `ld` elements, a line a row; turned: a line a column. `stride` elements from one of a batch to the next.
struct GemmOperand {
  std::int64_t ld = 0, stride = 0;
  bool turned = false;
  auto operator<=>(const GemmOperand&) const = default;
};

// d = a b, or c + a b: a is [m, k], b [k, n], c and d [m, n] (not turned), `batch` of each. Sums are fp32.
struct GemmShape {
  std::int64_t m = 0, n = 0, k = 0, batch = 1;
  GemmOperand a, b, d;    // c lies as d
  cudaDataType in = CUDA_R_16BF, out = CUDA_R_16BF;
  bool adds = false;
  auto operator<=>(const GemmShape&) const = default;
};

struct Gemm {
  GemmShape shape;
  const void *a, *b, *c;    // c: read if shape.adds; may be d
  void* d;
};

// Every call gets kGemmWorkspace bytes on the device (gpu_scratch.h).

// The library's first guess: the same algorithm in every process.
void multiply_as_guessed(const Gemm& gemm, void* workspace, CUstream_st* stream);
// What measure_gemm chose for such a product, of whatever lines; the first guess where it was not called.
void multiply_as_measured(const Gemm& gemm, void* workspace, CUstream_st* stream);
// Tries the guesses on these matrices, whose contents should be numbers as in use (zeros need less power, and so less time), and keeps the
// fastest for such products. Once in a process: ranks that are its threads take the same; in other processes another may win, whose last
// bits differ. Waits for the device; writes d.
void measure_gemm(const Gemm& gemm, void* workspace, CUstream_st* stream);

}    // namespace sheaf
