// Any bytes as tokenizer.json: a tokenizer or a UserError, and a tokenizer encodes and decodes.
#include "data/tokenizer/tokenizer.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto tokenizer = sheaf::Tokenizer::parse(std::string(reinterpret_cast<const char*>(data), size), "fuzz");
    std::vector<std::int32_t> ids;
    tokenizer->encode("It's 12 o'clock,\n\n  ab<s> \xC3\xA9 \xFF \xE2\x96\x81", ids);
    (void)tokenizer->decode(ids, true);
  } catch (const sheaf::UserError&) {
  }
  return 0;
}
