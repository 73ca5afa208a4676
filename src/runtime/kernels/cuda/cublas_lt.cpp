#include "runtime/kernels/cuda/cublas_lt.h"

#include <dlfcn.h>

#include <type_traits>

#include "base/error.h"

namespace sheaf::lt {
namespace {

Library open_library() {
  constexpr const char* kName = "libcublasLt.so.13";
  void* library = dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  SHEAF_CHECK(library, "{}", dlerror());    // NOLINT(concurrency-mt-unsafe)
  Library lt;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    SHEAF_CHECK(function, "{} has no {}", kName, name);
  };
  find(lt.create, "cublasLtCreate");
  find(lt.operation_create, "cublasLtMatmulDescCreate");
  find(lt.operation_set, "cublasLtMatmulDescSetAttribute");
  find(lt.layout_create, "cublasLtMatrixLayoutCreate");
  find(lt.layout_set, "cublasLtMatrixLayoutSetAttribute");
  find(lt.preference_create, "cublasLtMatmulPreferenceCreate");
  find(lt.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(lt.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(lt.candidates, "cublasLtMatmulAlgoGetHeuristic");
  find(lt.multiply, "cublasLtMatmul");
  find(lt.status_text, "cublasLtGetStatusString");
  return lt;
}

}    // namespace

const Library& library() {
  static const Library lt = open_library();
  return lt;
}

}    // namespace sheaf::lt
