// In place of libFuzzer's main, for every build: REPLAY FOLDER runs the target on each file of the folder, and on every prefix and with
// every byte changed where the file is small. A file that takes too long or too much memory ends the process.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

constexpr unsigned kSeconds = 20;                      // per file, with all that is made of it: some thousand runs
constexpr rlim_t kBytes = rlim_t{2} << 30;             // of the process
constexpr std::size_t kSmall = 1500, kPlaces = 400;    // a larger file has no more than so many prefixes and changes

// A copy of exactly that size, so that AddressSanitizer sees the first byte beyond it.
void run(const std::uint8_t* data, std::size_t size) {
  const std::vector<std::uint8_t> copy(data, data + size);
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

}    // namespace

int main(int argc, char** argv) {
  if (argc != 2) return std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]), 2;
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)    // they reserve more address space than there is memory
  const rlimit memory{kBytes, kBytes};
  ::setrlimit(RLIMIT_AS, &memory);
#endif
  std::vector<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::size_t runs = 0;
  for (const std::string& path : paths) {
    ::alarm(kSeconds);
    std::ifstream in(path, std::ios::binary);
    std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(in), {}};
    run(bytes.data(), bytes.size());
    const std::size_t stride = bytes.size() <= kSmall ? 1 : bytes.size() / kPlaces;
    for (std::size_t at = 0; at < bytes.size(); at += stride, runs += 3) {
      run(bytes.data(), at);
      for (const std::uint8_t change : {0x01, 0x80}) {
        bytes[at] ^= change;
        run(bytes.data(), bytes.size());
        bytes[at] ^= change;
      }
    }
    ++runs;
  }
  std::printf("%zu files, %zu runs\n", paths.size(), runs);
  return paths.empty() ? 1 : 0;
}
