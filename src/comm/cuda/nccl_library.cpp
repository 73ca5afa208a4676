#include "comm/cuda/nccl_library.h"

#include <dlfcn.h>

#include <cstdlib>

#include "base/error.h"

namespace sheaf {
namespace {

NcclLibrary open_library() {
  // Multicast over NVLink needs rights that containers often lack, and then fails in the middle of a run. Who wants it says so.
  setenv("NCCL_NVLS_ENABLE", "0", /*overwrite=*/0);
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (!library) user_error("runs on several GPUs need NCCL: {}\ninstall it (pip install nvidia-nccl-cu13), or take one GPU", dlerror());
  NcclLibrary nccl{};
#define SHEAF_NCCL_LOAD(name)                                                      \
  nccl.name = reinterpret_cast<decltype(nccl.name)>(dlsym(library, "nccl" #name)); \
  if (!nccl.name) user_error("libnccl.so.2 has no nccl" #name ": it is too old\ninstall a newer one (pip install nvidia-nccl-cu13)");
  SHEAF_NCCL_FUNCTIONS(SHEAF_NCCL_LOAD)
#undef SHEAF_NCCL_LOAD
  return nccl;
}

}    // namespace

const NcclLibrary& nccl_library() {
  static const NcclLibrary nccl = open_library();
  return nccl;
}

}    // namespace sheaf
