#pragma once
// Transport `nccl`: device memory between GPUs. No header of CUDA or NCCL here.
#include <memory>

#include "comm/transport.h"

namespace sheaf {

// Calls are put on the calling thread's current CUDA stream (c10) and do not wait for it. Used by one thread, except that abort() may come
// from any. Captures: groups must be prepared, and have been used once, before.
//
// DTypes: fp32, bf16, fp16, i64, i32, u8.
class NcclTransport final : public Transport {
 public:
  // host: carries what ranks tell each other to set up, and the news that a run was ended; the same ranks; it outlives this.
  // timeout_s: how long set-up or wait() may take, in seconds. UserError if NCCL is missing.
  NcclTransport(Transport& host, int device_index, double timeout_s);
  // Streams that were used have been waited for.
  ~NcclTransport() override;

  std::string_view name() const override { return "nccl"; }
  int rank() const override;
  int size() const override;
  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override;
  bool reduces() const override { return true; }
  void all_reduce(const Group& group, void* data, std::int64_t count, DType dtype, Reduction reduction, std::string_view what) override;
  void reduce_scatter(const Group& group, const void* in, void* out, std::int64_t count, DType dtype, Reduction reduction,
                      std::string_view what) override;
  void all_gather(const Group& group, const void* in, void* out, std::int64_t count, std::string_view what) override;
  void begin_batch() override;
  void end_batch() override;
  void prepare(const Group& group) override;
  bool in_stream_order() const override { return true; }
  Transport& host() override;
  // Errors that NCCL has found meanwhile, too.
  void check() override;
  void abort(const std::string& why) override;

  // In place of waiting for a stream, where a lost rank would mean for ever. RankFailure after timeout_s, or when check() throws; the
  // collectives under way are ended then.
  void wait() override;
  void wait_until(const std::function<bool()>& done) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}    // namespace sheaf
