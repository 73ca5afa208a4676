// A Megatron index. The first byte says how many bytes the token file has, the rest is the index.
#include <array>
#include <vector>

#include "data/megatron.h"
#include "fuzz/scratch_folder.h"

using namespace sheaf;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fuzz::ScratchFolder folder;
  if (size == 0) return 0;
  constexpr std::array<std::uint8_t, 255> kTokens{};
  const std::string bin = folder.write("c.bin", {kTokens.data(), data[0]});
  folder.write("c.idx", {data + 1, size - 1});
  fuzz::parse([&] {
    const MegatronSource source(bin, 1000);
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(source.size()));
    source.read(0, tokens);
    for (std::int64_t d = 0; d < source.document_count(); ++d)
      SHEAF_CHECK(source.document_begin(d) <= source.document_begin(d + 1), "document {}", d);
    SHEAF_CHECK(source.document_begin(source.document_count()) == source.size(), "{} tokens", source.size());
  });
  return 0;
}
