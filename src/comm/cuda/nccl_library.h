#pragma once
// NCCL, opened at run time: the program starts where it is missing. For files of this folder.
#include <nccl.h>

namespace sheaf {

// The functions in use, by their names without `nccl`.
struct NcclLibrary {
#define SHEAF_NCCL_FUNCTIONS(F)                                                                                                    \
  F(GetUniqueId)                                                                                                                   \
  F(CommInitRankConfig)                                                                                                            \
  F(CommFinalize) F(CommDestroy) F(CommAbort) F(CommGetAsyncError) F(GetErrorString) F(GetLastError) F(AllReduce) F(ReduceScatter) \
      F(AllGather) F(Send) F(Recv) F(GroupStart) F(GroupEnd)
#define SHEAF_NCCL_MEMBER(name) decltype(&nccl##name) name;
  SHEAF_NCCL_FUNCTIONS(SHEAF_NCCL_MEMBER)
#undef SHEAF_NCCL_MEMBER
};

// Opens it at the first call. UserError if it is not there.
const NcclLibrary& nccl_library();

}    // namespace sheaf
