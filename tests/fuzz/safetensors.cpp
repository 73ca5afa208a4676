// A safetensors file: its header, and that every tensor lies inside the file.
#include "checkpoint/safetensors.h"

#include <tuple>

#include "fuzz/scratch_folder.h"

using namespace sheaf;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::ScratchFolder folder;
  const std::string path = folder.write("model.safetensors", {data, size});
  fuzz::parse([&] {
    const SafetensorsFile file(path);
    std::byte sum{};
    for (const StoredTensor& tensor : file.tensors()) {
      SHEAF_CHECK(checked_bytes(tensor.dtype, tensor.shape, tensor.name) == std::ssize(tensor.bytes), "{}", tensor.name);
      for (const std::byte byte : tensor.bytes) sum ^= byte;    // reads what it claims to have
    }
    volatile std::byte kept = sum;    // or the loop would be nothing
    std::ignore = kept;
  });
  return 0;
}
