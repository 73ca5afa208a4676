#pragma once
// Transport `null`: moves nothing and counts what would be moved. For plans.
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "comm/transport.h"

namespace sheaf {

class NullTransport final : public Transport {
 public:
  // bytes: of one rank, as benchmarks of collectives count them. exchange: what goes to other ranks; all_reduce: the buffer;
  // reduce_scatter: `in`; all_gather: `out`.
  struct Traffic {
    std::int64_t calls = 0, bytes = 0;
    bool operator==(const Traffic&) const = default;
  };
  using Counts = std::map<std::pair<std::string, std::size_t>, Traffic>;    // by kind of call and size of the group

  // reduces: has collectives of its own, as nccl has.
  NullTransport(int rank, int size, bool reduces = true) : rank_(rank), size_(size), reduces_(reduces) {}
  const Counts& counts() const { return counts_; }

  std::string_view name() const override { return "null"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) override;
  bool reduces() const override { return reduces_; }
  void all_reduce(const Group& group, void* data, std::int64_t count, DType dtype, Reduction reduction, std::string_view what) override;
  void reduce_scatter(const Group& group, const void* in, void* out, std::int64_t count, DType dtype, Reduction reduction,
                      std::string_view what) override;
  void all_gather(const Group& group, const void* in, void* out, std::int64_t count, std::string_view what) override;
  void abort(const std::string&) override {}

 private:
  void add(const char* kind, const Group& group, std::int64_t bytes, std::string_view what);

  const int rank_, size_;
  const bool reduces_;
  Counts counts_;
};

}    // namespace sheaf
