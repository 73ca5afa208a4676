// run.json. What is accepted must come back from its own resolved form.
#include "engine/config.h"
#include "fuzz/scratch_folder.h"

using namespace sheaf;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  fuzz::parse([&] {
    const RunConfig config = parse_config(text, "run.json").config;
    const std::string again = resolved(config).dump();
    SHEAF_CHECK(parse_config(again, "resolved").config == config, "{}", again);
  });
  return 0;
}
