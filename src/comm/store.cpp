// A message is one key: PREFIX/from/to/number, its value what the sender calls it, a zero byte, and the bytes. The receiver deletes it.
// PREFIX/ended holds why the run was ended, PREFIX/left counts the clients that are done.
#include "comm/store.h"

#include <c10/util/Flags.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <thread>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "base/error.h"
#include "comm/checks.h"

C10_DECLARE_int(caffe2_log_level);

namespace sheaf {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::chrono::microseconds kLongestPause{50'000};    // between polls: a thousand ranks may ask one host
constexpr milliseconds kMomentAfterFailure{1000};

// Errors of c10 have a stack of addresses below their first line.
std::string first_line(const std::exception& error) {
  const std::string text = error.what();
  return text.substr(0, text.find('\n'));
}

// While it lives, c10d prints nothing below fatal: it reports a failed connection with a stack of addresses, we with one message.
class Quiet {
 public:
  Quiet() {
    const std::lock_guard lock(mutex_);
    if (num_++ == 0) before_ = std::exchange(FLAGS_caffe2_log_level, std::max(FLAGS_caffe2_log_level, 3));
  }
  ~Quiet() {
    const std::lock_guard lock(mutex_);
    if (--num_ == 0) FLAGS_caffe2_log_level = before_;
  }

 private:
  inline static std::mutex mutex_;
  inline static int num_ = 0, before_ = 0;    // the level is one for all threads
};

class StoreTransport final : public Transport {
 public:
  StoreTransport(const Launch& launch, double timeout_s)
      : rank_(launch.rank),
        size_(launch.size),
        timeout_s_(timeout_s),
        limit_(static_cast<std::int64_t>(timeout_s * 1000)),
        hosts_(launch.rank == 0 && !launch.agent_has_store),
        address_(fmt::format("{}:{}", launch.master_addr, launch.master_port)),
        prefix_(fmt::format("sheaf/{}/", launch.attempt)),
        sent_(size_),
        received_(size_) {
    c10d::TCPStoreOptions options;
    options.port = static_cast<std::uint16_t>(launch.master_port);
    options.isServer = hosts_;
    options.waitWorkers = false;    // who does not come is named by the first exchange
    options.timeout = std::max(limit_, milliseconds(1));
    try {
      const Quiet quiet;
      store_ = c10::make_intrusive<c10d::TCPStore>(launch.master_addr, options);
    } catch (const std::exception& error) {
      if (hosts_)
        user_error(
            "rank 0 cannot listen on {}: {}\nanother program may use the port, or an earlier run still does: choose another MASTER_PORT "
            "(torchrun: --master-port)",
            address_, first_line(error));
      user_error(
          "rank {} cannot reach rank 0 at {} within {:.3g} s: {}\ncheck MASTER_ADDR and MASTER_PORT (torchrun: --master-addr, "
          "--master-port), that rank 0 has started, and that no firewall is between",
          rank_, address_, timeout_s_, first_line(error));
    }
  }

  // While the host is there, the others can read; so it leaves last.
  ~StoreTransport() override {
    try {
      std::int64_t left = store_->add(prefix_ + "left", 1);
      const Clock::time_point until = Clock::now() + (failed_ ? std::min(limit_, kMomentAfterFailure) : limit_);
      for (; hosts_ && left < size_ && Clock::now() < until; left = store_->add(prefix_ + "left", 0))
        std::this_thread::sleep_for(milliseconds(10));
    } catch (const std::exception&) {    // the host is gone
    }
  }

  std::string_view name() const override { return "store"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override try {
    const std::size_t own = check_exchange(*this, group, send, recv, what);
    check();
    if (send[own].count) std::memmove(recv[own].data, send[own].data, static_cast<std::size_t>(send[own].count));
    std::vector<std::string> keys;
    std::vector<std::vector<std::uint8_t>> values;
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (i == own) continue;
      keys.push_back(key(rank_, group[i], sent_[group[i]]++));
      std::vector<std::uint8_t>& value = values.emplace_back(what.begin(), what.end());
      value.push_back(0);
      const auto* bytes = static_cast<const std::uint8_t*>(send[i].data);
      value.insert(value.end(), bytes, bytes + send[i].count);
    }
    if (!keys.empty()) store_->multiSet(keys, values);
    const Clock::time_point begin = Clock::now();
    for (std::size_t i = 0; i < group.size(); ++i)
      if (i != own) receive(group, i, recv, begin, what);
  } catch (const std::exception& error) {
    failed_ = true;
    if (dynamic_cast<const UserError*>(&error) || dynamic_cast<const InternalError*>(&error)) throw;
    throw RankFailure(fmt::format("rank {} lost the store at {} in '{}': {}\nrank 0 or its machine may have ended", rank_, address_, what,
                                  first_line(error)));
  }

  void check() override {
    {
      const std::lock_guard lock(mutex_);
      if (!ended_.empty()) throw RankFailure(ended_);
    }
    if (!store_->check({prefix_ + "ended"})) return;
    failed_ = true;
    throw RankFailure(store_->get_to_str(prefix_ + "ended"));
  }

  void abort(const std::string& why) override {
    failed_ = true;
    {
      const std::lock_guard lock(mutex_);
      if (!ended_.empty()) return;
      ended_ = why.empty() ? "the run was ended" : why;
    }
    try {
      store_->c10d::Store::compareSet(prefix_ + "ended", "", ended_);    // the first reason stays
    } catch (const std::exception&) {                                    // the host is gone
    }
  }

 private:
  std::string key(int from, int to, std::int64_t number) const { return fmt::format("{}{}/{}/{}", prefix_, from, to, number); }

  void receive(const Group& group, std::size_t i, std::span<const Bytes> recv, Clock::time_point begin, std::string_view what) {
    const std::string name = key(group[i], rank_, received_[group[i]]);
    // Not TCPStore::wait: it does not see that the run was ended, and prints when its time is up.
    std::chrono::microseconds pause{100};
    for (int polls = 1; !store_->check({name}); ++polls) {
      if (polls % 4 == 0) check();
      if (Clock::now() - begin >= limit_) fail_late(group, i, what);
      std::this_thread::sleep_for(pause);
      pause = std::min(pause * 3 / 2, kLongestPause);
    }
    const std::vector<std::uint8_t> value = store_->get(name);
    store_->deleteKey(name);
    ++received_[group[i]];
    const auto data = std::find(value.begin(), value.end(), 0) + 1;
    if (value.end() - data != recv[i].count)
      throw InternalError(disagreement_text(rank_, what, recv[i].count, group[i], {reinterpret_cast<const char*>(value.data())},
                                            std::to_string(value.end() - data)));
    std::copy(data, value.end(), static_cast<std::uint8_t*>(recv[i].data));
  }

  [[noreturn]] void fail_late(const Group& group, std::size_t first, std::string_view what) {
    std::vector<LateRank> late;
    for (std::size_t i = first; i < group.size(); ++i)
      if (group[i] != rank_ && !store_->check({key(group[i], rank_, received_[group[i]])})) late.push_back({group[i], ""});
    throw RankFailure(late_text(rank_, what, timeout_s_, late));
  }

  const int rank_, size_;
  const double timeout_s_;
  const milliseconds limit_;
  const bool hosts_;
  const std::string address_, prefix_;
  std::vector<std::int64_t> sent_, received_;    // messages to and from each rank
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::string ended_;    // by abort() on this rank
  c10::intrusive_ptr<c10d::TCPStore> store_;
};

}    // namespace

std::unique_ptr<Transport> make_store_transport(const Launch& launch, double timeout_s) {
  return std::make_unique<StoreTransport>(launch, timeout_s);
}

}    // namespace sheaf
