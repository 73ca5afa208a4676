// The plugin sheaf_mpi.so. Messages go point to point on one communicator of our own: MPI keeps the order of messages between two ranks, so
// any groups work without communicators of theirs. Every pair of a group exchanges at least one message, empty pieces too: then the two
// sides cannot disagree unseen.
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "comm/checks.h"
#include "comm/mpi.h"

namespace sheaf {
namespace {

constexpr std::int64_t kChunkBytes = std::int64_t(1) << 30;    // MPI counts in int
constexpr int kMaxAbortText = 2048;

std::atomic<bool> g_failed = false;    // of this process
std::atomic<bool> g_told = false;      // by the rank that failed first, which ends us all

// Finalizing waits for all ranks: after a failure it would hang, and some launchers let the other ranks wait for ever. By then the message
// of this process is on its way to stderr.
void at_exit(int status, void*) {
  const bool orderly = !g_failed && (status == 0 || status == 130);
  if (orderly) {
    MPI_Finalize();
  } else {
    std::fflush(nullptr);
    if (g_told) std::this_thread::sleep_for(std::chrono::seconds(2));    // one MPI_Abort prints enough
    MPI_Abort(MPI_COMM_WORLD, status == 0 ? 2 : status);
  }
}

std::string error_string(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  return std::string(text, static_cast<std::size_t>(length));
}

// What an exchange waits for, a chunk each.
struct Pending {
  std::vector<MPI_Request> requests;
  struct About {
    int peer;
    std::int64_t receives;    // bytes; -1: a send
  };
  std::vector<About> about;
};

class MpiTransport final : public Transport {
 public:
  explicit MpiTransport(double timeout_s) : timeout_s_(timeout_s) {
    int initialized = 0, level = MPI_THREAD_SINGLE;
    MPI_Initialized(&initialized);
    SHEAF_CHECK(!initialized, "MPI is initialised twice");
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &level);
    on_exit(at_exit, nullptr);
    any_thread_ = level == MPI_THREAD_MULTIPLE;
    MPI_Comm_dup(MPI_COMM_WORLD, &data_);
    MPI_Comm_dup(MPI_COMM_WORLD, &control_);
    for (const MPI_Comm communicator : {data_, control_}) MPI_Comm_set_errhandler(communicator, MPI_ERRORS_RETURN);
    MPI_Comm_rank(data_, &rank_);
    MPI_Comm_size(data_, &size_);
  }

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override {
    const std::size_t own = check_exchange(*this, group, send, recv, what);
    check();
    if (send[own].count) std::memmove(recv[own].data, send[own].data, static_cast<std::size_t>(send[own].count));
    Pending pending;
    for (std::size_t k = 1; k < group.size(); ++k) {
      const std::size_t i = (own + group.size() - k) % group.size();
      for (std::int64_t at = 0; at == 0 || at < recv[i].count; at += kChunkBytes) {
        const std::int64_t bytes = std::min(kChunkBytes, recv[i].count - at);
        MPI_Irecv(static_cast<char*>(recv[i].data) + at, static_cast<int>(bytes), MPI_BYTE, group[i], 0, data_,
                  add(pending, group[i], bytes));
      }
    }
    for (std::size_t k = 1; k < group.size(); ++k) {
      const std::size_t i = (own + k) % group.size();
      for (std::int64_t at = 0; at == 0 || at < send[i].count; at += kChunkBytes) {
        const std::int64_t bytes = std::min(kChunkBytes, send[i].count - at);
        MPI_Isend(static_cast<const char*>(send[i].data) + at, static_cast<int>(bytes), MPI_BYTE, group[i], 0, data_,
                  add(pending, group[i], -1));
      }
    }
    wait(pending, what);
  }

  void check() override {
    {
      const std::lock_guard lock(mutex_);
      if (!ended_.empty()) throw RankFailure(ended_);
    }
    int here = 0;
    MPI_Status status;
    if (MPI_Iprobe(MPI_ANY_SOURCE, 0, control_, &here, &status) != MPI_SUCCESS || !here) return;
    std::string text(kMaxAbortText, '\0');
    int length = 0;
    if (MPI_Recv(text.data(), kMaxAbortText, MPI_CHAR, status.MPI_SOURCE, 0, control_, &status) == MPI_SUCCESS)
      MPI_Get_count(&status, MPI_CHAR, &length);
    text.resize(static_cast<std::size_t>(length));
    g_told = true;
    end(text);
    throw RankFailure(text);
  }

  // The others get the text, and are ended when this process exits. After a failed call there is only the latter: sending makes MPI go on
  // with the messages of that call, whose memory is gone.
  void abort(const std::string& why) override {
    if (!end(why) || !any_thread_) return;
    for (int rank = 0; rank < size_; ++rank) {
      if (rank == rank_) continue;
      MPI_Request request;
      const int bytes = static_cast<int>(std::min<std::size_t>(ended_.size(), kMaxAbortText));
      if (MPI_Isend(ended_.data(), bytes, MPI_CHAR, rank, 0, control_, &request) == MPI_SUCCESS) MPI_Request_free(&request);
    }
  }

 private:
  static MPI_Request* add(Pending& pending, int peer, std::int64_t receives) {
    pending.about.push_back({peer, receives});
    return &pending.requests.emplace_back(MPI_REQUEST_NULL);
  }

  // Remembers the first failure; false if there was one. The text never changes afterwards: it is the buffer of sends.
  bool end(const std::string& why) {
    const std::lock_guard lock(mutex_);
    g_failed = true;
    if (!ended_.empty()) return false;
    ended_ = why.empty() ? "the run was ended" : why;
    return true;
  }

  void wait(Pending& pending, std::string_view what) {
    using Clock = std::chrono::steady_clock;
    const auto limit = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s_));
    const Clock::time_point begin = Clock::now();
    std::vector<MPI_Status> statuses(pending.requests.size());
    std::chrono::microseconds pause{0};
    for (int polls = 0;; ++polls) {
      int done = 0;
      const int code = MPI_Testall(static_cast<int>(pending.requests.size()), pending.requests.data(), &done, statuses.data());
      if (code != MPI_SUCCESS) fail_by_error(code, pending, statuses, what);
      if (done) break;
      if (Clock::now() - begin > limit) fail_late(pending, what);
      if (polls % 16 == 0) check_and_cancel(pending);
      if (polls < 20) {
        sched_yield();
      } else {
        pause = std::min(pause * 3 / 2 + std::chrono::microseconds(1), std::chrono::microseconds(200));
        std::this_thread::sleep_for(pause);
      }
    }
    for (std::size_t i = 0; i < statuses.size(); ++i) {
      if (pending.about[i].receives < 0) continue;
      int bytes = 0;
      MPI_Get_count(&statuses[i], MPI_BYTE, &bytes);
      if (bytes != pending.about[i].receives) disagree(pending.about[i], std::to_string(bytes), what);
    }
  }

  // Before the buffers go: MPI must not write into them any more.
  static void cancel(Pending& pending) {
    for (std::size_t i = 0; i < pending.requests.size(); ++i)
      if (pending.about[i].receives >= 0 && pending.requests[i] != MPI_REQUEST_NULL) {
        MPI_Cancel(&pending.requests[i]);
        MPI_Request_free(&pending.requests[i]);
      }
  }
  void check_and_cancel(Pending& pending) {
    try {
      check();
    } catch (...) {
      cancel(pending);
      throw;
    }
  }

  [[noreturn]] void fail_late(Pending& pending, std::string_view what) {
    std::vector<LateRank> late;
    for (const bool receives : {true, false})    // a rank that has not sent is not named again for what it has not received
      for (std::size_t i = 0; i < pending.requests.size(); ++i) {
        const Pending::About& about = pending.about[i];
        int done = 1;
        if (pending.requests[i] != MPI_REQUEST_NULL && (about.receives >= 0) == receives)
          MPI_Request_get_status(pending.requests[i], &done, MPI_STATUS_IGNORE);
        if (!done && std::none_of(late.begin(), late.end(), [&](const LateRank& l) { return l.rank == about.peer; }))
          late.push_back({about.peer, receives ? "" : "has not taken what was sent to it"});
      }
    const std::string text = late_text(rank_, what, timeout_s_, late);
    end(text);
    cancel(pending);
    throw RankFailure(text);
  }
  [[noreturn]] void disagree(const Pending::About& about, const std::string& sent, std::string_view what) {
    const std::string text = disagreement_text(rank_, what, about.receives, about.peer, "", sent);
    end(text);
    throw InternalError(text);
  }
  [[noreturn]] void fail_by_error(int code, Pending& pending, const std::vector<MPI_Status>& statuses, std::string_view what) {
    for (std::size_t i = 0; code == MPI_ERR_IN_STATUS && i < statuses.size(); ++i) {
      int kind = MPI_SUCCESS;
      MPI_Error_class(statuses[i].MPI_ERROR, &kind);
      if (kind == MPI_SUCCESS || kind == MPI_ERR_PENDING) continue;
      cancel(pending);
      if (kind == MPI_ERR_TRUNCATE) disagree(pending.about[i], "more", what);
      code = statuses[i].MPI_ERROR;
      end(fmt::format("rank {}: MPI failed with rank {} in '{}': {}", rank_, pending.about[i].peer, what, error_string(code)));
      throw RankFailure(ended_);
    }
    cancel(pending);
    end(fmt::format("rank {}: MPI failed in '{}': {}", rank_, what, error_string(code)));
    throw RankFailure(ended_);
  }

  const double timeout_s_;
  int rank_ = 0, size_ = 1;
  bool any_thread_ = false;
  MPI_Comm data_ = MPI_COMM_NULL, control_ = MPI_COMM_NULL;
  std::mutex mutex_;
  std::string ended_;    // why the run ended; written once, under the mutex
};

}    // namespace
}    // namespace sheaf

extern "C" __attribute__((visibility("default"))) sheaf::Transport* sheaf_mpi_transport(double timeout_s) {
  return new sheaf::MpiTransport(timeout_s);
}
