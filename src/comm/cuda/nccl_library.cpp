#include "comm/cuda/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <type_traits>

#include "base/error.h"

namespace sheaf {
namespace {

NcclLibrary open_library() {
  // Multicast over NVLink needs rights that containers often lack, and then fails in the middle of a run. Who wants it says so.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);    // NOLINT(concurrency-mt-unsafe)
  constexpr const char* kInstall = "install it (pip install nvidia-nccl-cu13), or take one GPU";
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!library) user_error("runs on several GPUs need NCCL: {}\n{}", dlerror(), kInstall);    // NOLINT(concurrency-mt-unsafe)
  NcclLibrary nccl;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    if (!function) user_error("libnccl.so.2 is too old: it has no {}\n{}", name, kInstall);
  };
  find(nccl.get_unique_id, "ncclGetUniqueId");
  find(nccl.comm_init_rank_config, "ncclCommInitRankConfig");
  find(nccl.comm_finalize, "ncclCommFinalize");
  find(nccl.comm_destroy, "ncclCommDestroy");
  find(nccl.comm_abort, "ncclCommAbort");
  find(nccl.comm_get_async_error, "ncclCommGetAsyncError");
  find(nccl.get_error_string, "ncclGetErrorString");
  find(nccl.get_last_error, "ncclGetLastError");
  find(nccl.all_reduce, "ncclAllReduce");
  find(nccl.reduce_scatter, "ncclReduceScatter");
  find(nccl.all_gather, "ncclAllGather");
  find(nccl.send, "ncclSend");
  find(nccl.recv, "ncclRecv");
  find(nccl.group_start, "ncclGroupStart");
  find(nccl.group_end, "ncclGroupEnd");
  return nccl;
}

}    // namespace

const NcclLibrary& nccl_library() {
  static const NcclLibrary nccl = open_library();
  return nccl;
}

}    // namespace sheaf
