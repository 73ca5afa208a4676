#include "comm/mpi.h"

#include <dlfcn.h>

#include <filesystem>

#include "base/error.h"
#include "base/text.h"

namespace sheaf {

std::unique_ptr<Transport> make_mpi_transport(double timeout_s) {
  const auto plugin = std::filesystem::read_symlink("/proc/self/exe").replace_filename("sheaf_mpi.so");
  constexpr std::string_view kInstall = "install MPI (Debian: apt-get install libopenmpi-dev openmpi-bin) and build again";
  if (!std::filesystem::exists(plugin))
    user_error("this process was started as a rank of MPI, but {} is missing: sheaf was built without MPI\n{}", quote(plugin.string()),
               kInstall);
  // GLOBAL: OpenMPI loads parts of itself that look for its symbols there.
  void* library = dlopen(plugin.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) user_error("cannot load MPI: {}\n{}", dlerror(), kInstall);    // NOLINT(concurrency-mt-unsafe)
  auto* factory = reinterpret_cast<MpiFactory*>(dlsym(library, "sheaf_mpi_transport"));
  SHEAF_CHECK(factory, "{} has no sheaf_mpi_transport", plugin.string());
  return std::unique_ptr<Transport>(factory(timeout_s));
}

}    // namespace sheaf
