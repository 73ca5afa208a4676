// tokenizer_bench TOKENIZER_JSON TEXT THREADS    for bench/tokenizer.py: documents of TEXT end with a NUL. For every line of standard
// input encodes them all and prints seconds, tokens and peak resident bytes.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

#include "base/json.h"
#include "data/tokenizer/tokenizer.h"

int main(int count, char** arguments) {
  if (count != 4) return 2;
  const auto tokenizer = sheaf::Tokenizer::read(arguments[1]);
  const std::string text = sheaf::read_file(arguments[2]);
  std::vector<std::string_view> documents;
  for (std::size_t begin = 0, end; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1)
    documents.push_back(std::string_view(text).substr(begin, end - begin));
  for (std::string line; std::getline(std::cin, line);) {
    const auto start = std::chrono::steady_clock::now();
    std::atomic<std::size_t> next{0}, tokens{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < std::atoi(arguments[3]); ++t)
      threads.emplace_back([&] {
        std::vector<std::int32_t> ids;
        for (std::size_t d; (d = next++) < documents.size();) {
          ids.clear();
          tokenizer->encode(documents[d], ids);
          tokens += ids.size();
        }
      });
    for (auto& thread : threads) thread.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    long peak = 0;    // not ru_maxrss, which counts what our parent had before exec
    std::ifstream status("/proc/self/status");
    for (std::string key; status >> key;)
      if (key == "VmHWM:") status >> peak;
    std::printf("%.6f %zu %ld\n", seconds.count(), tokens.load(), peak * 1024);
    std::fflush(stdout);
  }
}
