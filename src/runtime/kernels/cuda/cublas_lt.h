#pragma once
// cuBLASLt, opened at run time: LibTorch has loaded it. Its header comes in a wheel of half a gigabyte that nothing else of a build needs,
// so what is in use of its C interface is declared here, by the names of NVIDIA's documentation of version 13. For files of this folder.
#include <library_types.h>

#include <cstddef>
#include <cstdint>

struct CUstream_st;

namespace sheaf::lt {

using Status = int;    // 0: all is well
using Handle = struct HandleOpaque*;
using Operation = struct OperationOpaque*;      // cublasLtMatmulDesc_t
using Layout = struct LayoutOpaque*;            // cublasLtMatrixLayout_t: a matrix by columns
using Preference = struct PreferenceOpaque*;    // cublasLtMatmulPreference_t

struct Algorithm {    // cublasLtMatmulAlgo_t
  std::uint64_t data[8];
};
struct Candidate {    // cublasLtMatmulHeuristicResult_t
  Algorithm algorithm;
  std::size_t workspace_bytes;
  Status status;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Candidate) == 96);

inline constexpr int kCompute32F = 68;                                   // cublasComputeType_t
inline constexpr int kTransA = 3, kTransB = 4;                           // cublasLtMatmulDescAttributes_t, of int32
inline constexpr int kBatchCount = 5, kBatchStride = 6;                  // cublasLtMatrixLayoutAttribute_t, of int32, int64
inline constexpr int kMaxWorkspace = 1, kReductions = 3;                 // cublasLtMatmulPreferenceAttributes_t, of uint64, uint32
inline constexpr int kAlignmentOfA = 5;                                  // .. B, C, D behind it, of uint32
inline constexpr std::uint32_t kNoReduction = 0, kReductionIn32F = 2;    // cublasLtReductionScheme_t, bits; 1 is in no fixed order

struct Library {
  Status (*create)(Handle*);
  Status (*operation_create)(Operation*, int compute, cudaDataType scale);
  Status (*operation_set)(Operation, int attribute, const void* value, std::size_t bytes);
  Status (*layout_create)(Layout*, cudaDataType, std::uint64_t rows, std::uint64_t columns, std::int64_t ld);
  Status (*layout_set)(Layout, int attribute, const void* value, std::size_t bytes);
  Status (*preference_create)(Preference*);
  Status (*preference_set)(Preference, int attribute, const void* value, std::size_t bytes);
  Status (*preference_destroy)(Preference);
  Status (*candidates)(Handle, Operation, Layout a, Layout b, Layout c, Layout d, Preference, int wanted, Candidate* found, int* num_found);
  Status (*multiply)(Handle, Operation, const void* alpha, const void* a, Layout, const void* b, Layout, const void* beta, const void* c,
                     Layout, void* d, Layout, const Algorithm*, void* workspace, std::size_t workspace_bytes, CUstream_st*);
  const char* (*status_text)(Status);
};

// Opened at the first call. InternalError if it is not there: LibTorch does not start without it.
const Library& library();

}    // namespace sheaf::lt
