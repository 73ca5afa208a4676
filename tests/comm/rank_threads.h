#pragma once
// Runs a function as every rank of a world, a thread each.
#include <chrono>
#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "comm/transport.h"

namespace sheaf::test {

struct Outcome {
  enum { ok, rank_failure, internal_error, other } kind = ok;
  std::string text;
  double seconds = 0;
};

inline std::vector<Outcome> run_ranks(int size, const std::function<void(int)>& work) {
  std::vector<Outcome> outcomes(size);
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      const auto begin = std::chrono::steady_clock::now();
      Outcome& o = outcomes[rank];
      try {
        work(rank);
      } catch (const RankFailure& error) {
        o.kind = Outcome::rank_failure, o.text = error.what();
      } catch (const InternalError& error) {
        o.kind = Outcome::internal_error, o.text = error.what();
      } catch (const std::exception& error) {
        o.kind = Outcome::other, o.text = error.what();
      }
      o.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    });
  threads.clear();    // joins
  return outcomes;
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}    // namespace sheaf::test
