// One mailbox per (sender, receiver). It holds at most one message, since a sender leaves its call only when all its messages were taken:
// so the order of a sender's calls is the order in which the receiver sees them. One mutex guards all; copies are made without it.
//
//   empty -> posted     by the sender, which then waits
//   posted -> copying   by the receiver; from here the sender's memory is in use
//   copying -> empty    by the receiver, when the bytes have arrived
//   posted -> refused   by the receiver, when the number of bytes is not what it expects
//   any -> empty        by the sender when it leaves, after `copying` has ended
#include "comm/local.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "comm/checks.h"

namespace sheaf {
namespace {

using Clock = std::chrono::steady_clock;

struct Message {
  enum { empty, posted, copying, refused } state = empty;
  const void* data = nullptr;
  std::int64_t bytes = 0;
  std::string_view what;    // of the sender, which is inside its call while the message is there
  std::string refusal;
};

struct RankState {
  std::condition_variable wake;
  std::string what;    // of its last call
  bool called = false, inside = false;
};

void copy_on_host(void* dst, const void* src, std::int64_t bytes) { std::memcpy(dst, src, static_cast<std::size_t>(bytes)); }
void nothing() {}

}    // namespace

const DeviceCopy kHostCopy{copy_on_host, nothing};

struct LocalState {
  LocalState(int num_ranks, double limit_s, const DeviceCopy& device_copy)
      : size(num_ranks), timeout_s(limit_s), copy(device_copy), ranks(num_ranks), messages(std::size_t(num_ranks) * num_ranks) {}

  const int size;
  const double timeout_s;
  const DeviceCopy copy;
  std::mutex mutex;    // guards all below
  std::vector<RankState> ranks;
  std::vector<Message> messages;    // [from, to]
  std::string ended;                // by abort(): wakes everybody
  std::string broken;               // the first failure of a call: later calls fail at once, those that wait keep their own time limit

  Message& message(int from, int to) { return messages[std::size_t(from) * size + to]; }

  void check_not_ended() const {
    if (!ended.empty()) throw RankFailure(ended);
    if (!broken.empty()) throw RankFailure(broken);
  }
  void abort(const std::string& why) {
    const std::lock_guard lock(mutex);
    if (ended.empty()) ended = why.empty() ? "the run was ended" : why;
    for (RankState& r : ranks) r.wake.notify_one();
  }
  std::string where(int rank) const {
    const RankState& r = ranks[rank];
    if (!r.called) return "has made no call yet";
    return r.inside ? fmt::format("is still in '{}'", r.what) : fmt::format("has left '{}' and made no call since", r.what);
  }
};

namespace {

// One call of one rank. All members but copy_arrived hold the lock; the destructor takes back what is still posted.
class Call {
 public:
  Call(LocalState& world, int rank, const Group& group, std::size_t own, std::span<const ConstBytes> send, std::span<const Bytes> recv,
       std::string_view what)
      : world_(world), rank_(rank), group_(group), recv_(recv), what_(what), lock_(world.mutex) {
    world_.check_not_ended();
    RankState& me = world_.ranks[rank_];
    SHEAF_CHECK(!me.inside, "rank {} calls '{}' while it is in '{}': one thread at a time", rank_, what, me.what);
    me.what = what, me.called = me.inside = true;
    for (std::size_t k = 1; k < group.size(); ++k) {    // from the next rank on, so that not all begin with the same
      const std::size_t i = (own + k) % group.size();
      peers_.push_back(i);
      Message& m = world_.message(rank_, group[i]);
      m.data = send[i].data, m.bytes = send[i].count, m.what = what, m.state = Message::posted;
      world_.ranks[group[i]].wake.notify_one();
    }
  }
  ~Call() {
    if (!lock_.owns_lock()) lock_.lock();
    RankState& me = world_.ranks[rank_];
    for (const std::size_t i : peers_) {
      Message& m = world_.message(rank_, group_[i]);
      me.wake.wait(lock_, [&] { return m.state != Message::copying; });    // as long as a copy takes
      m.state = Message::empty;
    }
    me.inside = false;
  }

  void receive() {
    std::vector<std::size_t> missing = peers_;
    while (!missing.empty()) {
      std::vector<std::size_t> arrived;
      const auto look = [&] {
        std::erase_if(missing, [&](std::size_t i) {
          const bool here = world_.message(group_[i], rank_).state == Message::posted;
          if (here) arrived.push_back(i);
          return here;
        });
        return !arrived.empty();
      };
      if (!wait(look)) fail_late(missing);
      for (const std::size_t i : arrived) accept(i);
      copy_arrived(arrived);
    }
  }

  // Until all of this rank's pieces were taken.
  void wait_for_receivers() {
    std::vector<std::size_t> missing;
    const auto look = [&] {
      missing.clear();
      for (const std::size_t i : peers_)
        if (world_.message(rank_, group_[i]).state != Message::empty) missing.push_back(i);
      return missing.empty();
    };
    if (!wait(look)) fail_late(missing);
  }

 private:
  // False: the time limit passed.
  template <class Ready>
  bool wait(Ready ready) {
    for (bool in_time = true;;) {
      for (const std::size_t i : peers_)
        if (const Message& m = world_.message(rank_, group_[i]); m.state == Message::refused) throw InternalError(m.refusal);
      if (!world_.ended.empty()) throw RankFailure(world_.ended);
      if (ready()) return true;
      if (!in_time) return false;
      in_time = world_.ranks[rank_].wake.wait_until(lock_, deadline_) == std::cv_status::no_timeout;
    }
  }

  [[noreturn]] void fail_late(const std::vector<std::size_t>& missing) {
    std::vector<LateRank> late;
    late.reserve(missing.size());
    for (const std::size_t i : missing) late.push_back({group_[i], world_.where(group_[i])});
    fail<RankFailure>(late_text(rank_, what_, world_.timeout_s, late));
  }
  template <class Error>
  [[noreturn]] void fail(const std::string& text) {
    if (world_.broken.empty()) world_.broken = text;
    throw Error(text);
  }

  void accept(std::size_t i) {
    Message& m = world_.message(group_[i], rank_);
    if (m.bytes == recv_[i].count) return;
    m.state = Message::refused;
    m.refusal = disagreement_text(rank_, what_, recv_[i].count, group_[i], m.what, std::to_string(m.bytes));
    world_.ranks[group_[i]].wake.notify_one();
    fail<InternalError>(m.refusal);
  }

  void copy_arrived(const std::vector<std::size_t>& arrived) {
    for (const std::size_t i : arrived) world_.message(group_[i], rank_).state = Message::copying;
    // However the copies end: the senders may have their memory back.
    struct Release {
      Call& call;
      const std::vector<std::size_t>& arrived;
      ~Release() {
        call.lock_.lock();
        for (const std::size_t i : arrived) {
          call.world_.message(call.group_[i], call.rank_).state = Message::empty;
          call.world_.ranks[call.group_[i]].wake.notify_one();
        }
      }
    } release{*this, arrived};
    lock_.unlock();
    for (const std::size_t i : arrived) {
      const Message& m = world_.message(group_[i], rank_);    // nobody changes it while it is `copying`
      if (m.bytes) world_.copy.copy(recv_[i].data, m.data, m.bytes);
    }
    world_.copy.synchronize();
  }

  LocalState& world_;
  const int rank_;
  const Group& group_;
  const std::span<const Bytes> recv_;
  const std::string_view what_;
  std::unique_lock<std::mutex> lock_;
  const Clock::time_point deadline_ =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(world_.timeout_s));
  std::vector<std::size_t> peers_;    // indices into the group, the own one left out
};

class LocalTransport final : public Transport {
 public:
  LocalTransport(LocalState& world, int rank) : world_(world), rank_(rank) {}
  std::string_view name() const override { return "local"; }
  int rank() const override { return rank_; }
  int size() const override { return world_.size; }

  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override {
    const std::size_t own = check_exchange(*this, group, send, recv, what);
    if (send[own].count && send[own].data != recv[own].data) world_.copy.copy(recv[own].data, send[own].data, send[own].count);
    world_.copy.synchronize();
    Call call(world_, rank_, group, own, send, recv, what);
    call.receive();
    call.wait_for_receivers();
  }
  void check() override {
    const std::lock_guard lock(world_.mutex);
    world_.check_not_ended();
  }
  void abort(const std::string& why) override { world_.abort(why); }

 private:
  LocalState& world_;
  const int rank_;
};

}    // namespace

LocalWorld::LocalWorld(int size, double timeout_s, const DeviceCopy& copy) : state_(std::make_unique<LocalState>(size, timeout_s, copy)) {
  for (int rank = 0; rank < size; ++rank) ends_.push_back(std::make_unique<LocalTransport>(*state_, rank));
}
LocalWorld::~LocalWorld() = default;

Transport& LocalWorld::at(int rank) {
  SHEAF_CHECK(rank >= 0 && rank < size(), "no rank {} among {}", rank, size());
  return *ends_[rank];
}

}    // namespace sheaf
