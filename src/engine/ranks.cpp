#include "engine/ranks.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "comm/host_ops.h"
#include "runtime/device.h"

namespace sheaf {
namespace {

// Of the ranks' errors the one that says what happened: a failure of another rank is only an echo.
[[noreturn]] void throw_first(const std::vector<std::exception_ptr>& errors) {
  std::exception_ptr echo;
  for (const std::exception_ptr& error : errors) {
    if (!error) continue;
    try {
      std::rethrow_exception(error);
    } catch (const RankFailure&) {
      if (!echo) echo = error;
    } catch (...) {
      throw;
    }
  }
  std::rethrow_exception(echo);
}

void run_threads(const RanksOptions& options, const std::function<void(const Rank&)>& work) {
  const int count = static_cast<int>(options.nproc);
  const auto transports = make_local_transports(options.device, count, options.timeout_s);
  std::vector<std::exception_ptr> errors(static_cast<std::size_t>(count));
  const auto run = [&](int index) {
    const auto failed = [&](const std::string& what) {
      errors[static_cast<std::size_t>(index)] = std::current_exception();
      transports->at(index).abort(fmt::format("rank {}: {}", index, what));
    };
    try {
      const int device_index = device_of_rank(options.device, index);
      enter_rank_thread(options.device, count, device_index, options.threads);
      work({.index = index, .count = count, .transport = &transports->at(index), .device_index = device_index});
    } catch (const std::exception& error) {
      failed(error.what());
    } catch (...) {
      failed("an unknown error");
    }
  };
  std::vector<std::thread> threads;
  for (int index = 1; index < count; ++index) threads.emplace_back(run, index);
  run(0);
  for (std::thread& thread : threads) thread.join();
  if (std::any_of(errors.begin(), errors.end(), [](const auto& error) { return error != nullptr; })) throw_first(errors);
}

}    // namespace

void run_ranks(const Launch& launch, const RanksOptions& options, const std::function<void(const Rank&)>& work) {
  if (launch.by != Launch::By::none && launch.size > 1) {
    const int device_index = device_of_rank(options.device, std::max(0, launch.local_rank));
    enter_rank_thread(options.device, 1, device_index);
    const auto transport = make_process_transport(launch, options.device, options.timeout_s);
    try {
      work({.index = transport->rank(), .count = transport->size(), .transport = transport.get(), .device_index = device_index});
    } catch (const std::exception& error) {
      transport->abort(fmt::format("rank {}: {}", transport->rank(), error.what()));
      throw;
    }
    return;
  }
  if (options.nproc > 1) return run_threads(options, work);
  if (options.threads > 0) enter_rank_thread(options.device, 1, 0, options.threads);
  work({.device_index = 0});
}

static std::vector<std::string> of_all(const Rank& rank, const std::string& text, std::string_view what) {
  return rank.transport ? all_gather_text(*rank.host(), text, what) : std::vector<std::string>{text};
}

bool any_of_ranks(const Rank& rank, bool mine, std::string_view what) {
  const auto texts = of_all(rank, mine ? "1" : "0", what);
  return std::find(texts.begin(), texts.end(), "1") != texts.end();
}
bool all_of_ranks(const Rank& rank, bool mine, std::string_view what) {
  const auto texts = of_all(rank, mine ? "1" : "0", what);
  return std::find(texts.begin(), texts.end(), "0") == texts.end();
}
double max_of_ranks(const Rank& rank, double mine, std::string_view what) {
  double most = mine;
  for (const std::string& text : of_all(rank, shortest(mine), what)) most = std::max(most, std::stod(text));
  return most;
}

}    // namespace sheaf
