// Communicators are non-blocking: a call returns ncclInProgress instead of waiting for other ranks, and is polled with the time limit. A
// failure, here or elsewhere, ends all of them: kernels that wait for a lost rank finish only then. Captured graphs of their calls must go
// before the transport does.
#include "comm/cuda/nccl.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "comm/checks.h"
#include "comm/cuda/nccl_library.h"

namespace sheaf {
namespace {

using Clock = std::chrono::steady_clock;

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::fp16:
      return ncclFloat16;
    case DType::i64:
      return ncclInt64;
    case DType::i32:
      return ncclInt32;
    case DType::u8:
      return ncclUint8;
    default:
      SHEAF_CHECK(false, "nccl reduces no {}", sheaf::name(dtype));
  }
}

ncclRedOp_t nccl_reduction(Reduction reduction) {
  return reduction == Reduction::sum ? ncclSum : reduction == Reduction::max ? ncclMax : ncclMin;
}

void cuda_check(cudaError_t error, std::string_view what) {
  SHEAF_CHECK(error == cudaSuccess, "CUDA failed in '{}': {}", what, cudaGetErrorString(error));
}

// Between polls: short at first, then longer.
class Pause {
 public:
  void sleep() {
    std::this_thread::sleep_for(length_);
    length_ = std::min(length_ * 5 / 4 + std::chrono::microseconds(1), std::chrono::microseconds(100));
  }

 private:
  std::chrono::microseconds length_{0};
};

}    // namespace

class NcclTransport::Impl {
 public:
  Impl(Transport& host_transport, int device_index, double limit_s)
      : host(host_transport), nccl(nccl_library()), device(static_cast<c10::DeviceIndex>(device_index)), timeout_s(limit_s) {}
  ~Impl() {
    if (!ended_) destroy();
    end_communicators();
    if (event_) cudaEventDestroy(event_);
  }

  // While it lives, no other thread ends the communicators. An abort() that comes meanwhile is done when it goes.
  class Use {
   public:
    Use(Impl& impl, std::string_view what) : impl_(impl) {
      impl_.mutex_.lock();
      if (!impl_.ended_) impl_.last_ = what;
    }
    ~Use() {
      impl_.mutex_.unlock();
      if (impl_.ended_) impl_.end_communicators();
    }

   private:
    Impl& impl_;
  };

  cudaStream_t stream() const { return c10::cuda::getCurrentCUDAStream(device).stream(); }

  void copy(void* dst, const void* src, std::int64_t bytes, std::string_view what) const {
    if (bytes == 0 || dst == src) return;
    cuda_check(cudaMemcpyAsync(dst, src, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream()), what);
  }

  // call(communicator, stream): one or more calls of NCCL.
  template <class Call>
  void launch(const Group& group, std::string_view what, Call call) {
    const Use use(*this, what);
    check_not_ended();
    const auto found = communicators_.find(group);
    SHEAF_CHECK(found != communicators_.end(), "'{}': the group was not prepared", what);
    last_group_ = group;
    const ncclResult_t result = call(found->second, stream());
    if (num_batches_)
      accept(result), batch_.push_back(found->second);
    else
      settle(result, found->second);
  }

  void begin_batch() {
    accept(nccl.group_start());
    ++num_batches_;
  }
  void end_batch() {
    const Use use(*this, last_);
    check_not_ended();
    --num_batches_;
    const ncclResult_t result = nccl.group_end();
    accept(result);
    if (num_batches_) return;
    if (result == ncclInProgress)
      for (const ncclComm_t communicator : batch_) settle(result, communicator);
    batch_.clear();
  }

  void prepare(const Group& group) {
    const std::string what = "setting up NCCL";
    const std::size_t own = own_index(host, group, what);
    if (group.size() == 1) return;
    {
      const Use use(*this, what);
      check_not_ended();
      if (communicators_.contains(group)) return;
    }
    ncclUniqueId id{};
    if (own == 0) accept(nccl.get_unique_id(&id));
    const std::int64_t bytes = sizeof id;
    std::vector<ConstBytes> send(group.size());
    std::vector<Bytes> recv(group.size());
    if (own == 0)
      std::fill(send.begin() + 1, send.end(), ConstBytes{&id, bytes});
    else
      recv[0] = {&id, bytes};
    host.exchange(group, send, recv, what);

    const c10::cuda::CUDAGuard guard(device);
    const Use use(*this, what);
    check_not_ended();
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    ncclComm_t communicator = nullptr;
    const ncclResult_t result =
        nccl.comm_init_rank_config(&communicator, static_cast<int>(group.size()), id, static_cast<int>(own), &config);
    last_group_ = group;
    if (communicator) communicators_.emplace(group, communicator);
    settle(result, communicator);
  }

  void check() {
    check_not_ended();
    try {
      host.check();
    } catch (const RankFailure& failure) {
      end(failure.what());
      end_communicators();
      throw;
    }
    const Use use(*this, last_);
    check_not_ended();
    for (const auto& [group, communicator] : communicators_) {
      ncclResult_t state = ncclSuccess;
      accept(nccl.comm_get_async_error(communicator, &state));
      if (state != ncclSuccess && state != ncclInProgress) last_group_ = group;
      accept(state);
    }
  }

  void wait() {
    if (!event_) cuda_check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "wait");
    cuda_check(cudaEventRecord(event_, stream()), "wait");
    wait_until([this] {
      const cudaError_t state = cudaEventQuery(event_);
      if (state != cudaErrorNotReady) cuda_check(state, last_);
      return state == cudaSuccess;
    });
  }
  void wait_until(const std::function<bool()>& done) {
    const Clock::time_point begin = Clock::now();
    Clock::time_point next_check = begin + kCheckEvery;
    for (Pause pause; !done(); pause.sleep()) {
      const Clock::time_point now = Clock::now();
      if (now < next_check) continue;
      next_check = now + kCheckEvery;
      check();
      if (now - begin <= limit()) continue;
      const Use use(*this, last_);
      check_not_ended();
      fail_late("for its GPU. Last launched:");
    }
  }

  void abort(const std::string& why) {
    end(why.empty() ? "the run was ended" : why);
    end_communicators();
    host.abort(why);
  }

  Transport& host;
  const NcclLibrary& nccl;

 private:
  static constexpr std::chrono::milliseconds kCheckEvery{20};

  Clock::duration limit() const { return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s)); }

  void check_not_ended() {
    if (!ended_) return;
    close_batches();
    const std::lock_guard lock(text_mutex_);
    throw RankFailure(why_);
  }

  // From now on every call throws; the communicators go as soon as nobody uses them.
  void end(const std::string& why) {
    const std::lock_guard lock(text_mutex_);
    if (why_.empty()) why_ = why;
    ended_ = true;
  }
  // Their kernels end at once, but ncclCommAbort returns only when no captured graph holds the communicator any more: each has a thread
  // that waits for that, while whoever called unwinds to where the graphs are.
  void end_communicators() {
    if (!mutex_.try_lock()) return;    // the user does it
    for (const auto& [group, communicator] : communicators_)
      aborting_.emplace_back([this, ending = communicator] { nccl.comm_abort(ending); });
    communicators_.clear();
    mutex_.unlock();
  }
  // Of the calling thread: NCCL keeps open groups by thread.
  void close_batches() {
    for (; num_batches_; --num_batches_) nccl.group_end();
  }

  std::string last_call() const {
    std::vector<std::string> ranks;
    for (std::size_t i = 0; i < last_group_.size() && i < 16; ++i) ranks.push_back(std::to_string(last_group_[i]));
    if (last_group_.size() > ranks.size()) ranks.emplace_back("...");
    return ranks.empty() ? quote(last_) : fmt::format("'{}' of ranks {}", last_, join(ranks, ", "));
  }
  [[noreturn]] void fail(const std::string& text) {
    close_batches();
    end(text);
    throw RankFailure(text);
  }
  [[noreturn]] void fail_late(std::string_view in) {
    fail(fmt::format("rank {} waited {:.3g} s {} {}\nanother of these ranks has failed or is late; if it is only slow, raise run.timeout_s",
                     host.rank(), timeout_s, in, last_call()));
  }

  void accept(ncclResult_t result) {
    if (result == ncclSuccess || result == ncclInProgress) return;
    const std::string text = fmt::format("rank {}: NCCL failed in {}: {}: {}", host.rank(), last_call(), nccl.get_error_string(result),
                                         nccl.get_last_error(nullptr));
    if (result != ncclInvalidArgument && result != ncclInvalidUsage) fail(text + "\nNCCL_DEBUG=WARN in the environment says more");
    close_batches();
    end(text);
    throw InternalError(text);
  }
  // Until the communicator has done what `result` says is under way.
  void settle(ncclResult_t result, ncclComm_t communicator) {
    accept(result);
    const Clock::time_point begin = Clock::now();
    Clock::time_point next_check = begin + kCheckEvery;
    for (Pause pause; result == ncclInProgress; pause.sleep()) {
      accept(nccl.comm_get_async_error(communicator, &result));
      accept(result);
      check_not_ended();
      if (const Clock::time_point now = Clock::now(); now >= next_check) {
        next_check = now + kCheckEvery;
        try {
          host.check();
        } catch (const RankFailure& failure) {
          end(failure.what());
          throw;
        }
        if (now - begin > limit()) fail_late("in");
      }
    }
  }

  // In good order: what is under way ends first, on all ranks; a rank that does not come is not waited for long.
  void destroy() {
    const std::lock_guard lock(mutex_);
    for (const auto& [group, communicator] : communicators_) nccl.comm_finalize(communicator);
    const Clock::time_point until = Clock::now() + std::min<Clock::duration>(limit(), std::chrono::seconds(5));
    for (const auto& [group, communicator] : communicators_) {
      ncclResult_t state = ncclInProgress;
      nccl.comm_get_async_error(communicator, &state);
      for (Pause pause; state == ncclInProgress && Clock::now() < until; pause.sleep()) nccl.comm_get_async_error(communicator, &state);
      state == ncclSuccess ? nccl.comm_destroy(communicator) : nccl.comm_abort(communicator);
    }
    communicators_.clear();
  }

  const c10::DeviceIndex device;
  const double timeout_s;
  std::mutex mutex_;                             // held while NCCL is called
  std::map<Group, ncclComm_t> communicators_;    // of groups of more than one rank
  int num_batches_ = 0;                          // open ones
  std::vector<ncclComm_t> batch_;
  std::string last_;    // what was called last, and by whom
  Group last_group_;
  cudaEvent_t event_ = nullptr;
  std::atomic<bool> ended_ = false;    // set before end_communicators() tries to lock, read after Use unlocks: one of the two sees it
  std::mutex text_mutex_;
  std::string why_;
  std::vector<std::jthread> aborting_;
};

NcclTransport::NcclTransport(Transport& host, int device_index, double timeout_s)
    : impl_(std::make_unique<Impl>(host.host(), device_index, timeout_s)) {}
NcclTransport::~NcclTransport() = default;

int NcclTransport::rank() const { return impl_->host.rank(); }
int NcclTransport::size() const { return impl_->host.size(); }
Transport& NcclTransport::host() { return impl_->host; }
void NcclTransport::begin_batch() { impl_->begin_batch(); }
void NcclTransport::end_batch() { impl_->end_batch(); }
void NcclTransport::prepare(const Group& group) { impl_->prepare(group); }
void NcclTransport::check() { impl_->check(); }
void NcclTransport::abort(const std::string& why) { impl_->abort(why); }
void NcclTransport::wait() { impl_->wait(); }
void NcclTransport::wait_until(const std::function<bool()>& done) { impl_->wait_until(done); }

void NcclTransport::exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) {
  const std::size_t own = check_exchange(*this, group, send, recv, what);
  impl_->copy(recv[own].data, send[own].data, send[own].count, what);
  if (group.size() == 1) return;
  impl_->launch(group, what, [&](ncclComm_t communicator, cudaStream_t stream) {
    const NcclLibrary& nccl = impl_->nccl;
    ncclResult_t worst = nccl.group_start();
    const auto note = [&](ncclResult_t result) {
      if (result != ncclSuccess && result != ncclInProgress) worst = result;
    };
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (i == own) continue;
      const int peer = static_cast<int>(i);
      if (send[i].count) note(nccl.send(send[i].data, static_cast<std::size_t>(send[i].count), ncclUint8, peer, communicator, stream));
      if (recv[i].count) note(nccl.recv(recv[i].data, static_cast<std::size_t>(recv[i].count), ncclUint8, peer, communicator, stream));
    }
    const ncclResult_t end = nccl.group_end();
    return worst == ncclSuccess ? end : worst;
  });
}

void NcclTransport::all_reduce(const Group& group, void* data, std::int64_t count, DType dtype, Reduction reduction,
                               std::string_view what) {
  if (group.size() == 1 || count == 0) return;
  impl_->launch(group, what, [&](ncclComm_t communicator, cudaStream_t stream) {
    return impl_->nccl.all_reduce(data, data, static_cast<std::size_t>(count), nccl_type(dtype), nccl_reduction(reduction), communicator,
                                  stream);
  });
}

void NcclTransport::reduce_scatter(const Group& group, const void* in, void* out, std::int64_t count, DType dtype, Reduction reduction,
                                   std::string_view what) {
  if (group.size() == 1) return impl_->copy(out, in, count * size_bytes(dtype), what);
  if (count == 0) return;
  impl_->launch(group, what, [&](ncclComm_t communicator, cudaStream_t stream) {
    return impl_->nccl.reduce_scatter(in, out, static_cast<std::size_t>(count), nccl_type(dtype), nccl_reduction(reduction), communicator,
                                      stream);
  });
}

void NcclTransport::all_gather(const Group& group, const void* in, void* out, std::int64_t count, std::string_view what) {
  if (group.size() == 1) return impl_->copy(out, in, count, what);
  if (count == 0) return;
  impl_->launch(group, what, [&](ncclComm_t communicator, cudaStream_t stream) {
    return impl_->nccl.all_gather(in, out, static_cast<std::size_t>(count), ncclUint8, communicator, stream);
  });
}

}    // namespace sheaf
