#include "comm/null.h"

#include "comm/checks.h"

namespace sheaf {

void NullTransport::add(const char* kind, const Group& group, std::int64_t bytes, std::string_view what) {
  own_index(*this, group, what);
  Traffic& traffic = counts_[{kind, group.size()}];
  ++traffic.calls;
  traffic.bytes += bytes;
}

void NullTransport::exchange(const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv, std::string_view what) {
  const std::size_t own = check_exchange(*this, group, send, recv, what);
  std::int64_t bytes = -send[own].count;
  for (const ConstBytes& piece : send) bytes += piece.count;
  add("exchange", group, bytes, what);
}

void NullTransport::all_reduce(const Group& group, void*, std::int64_t count, DType dtype, Reduction, std::string_view what) {
  add("all_reduce", group, count * size_bytes(dtype), what);
}

void NullTransport::reduce_scatter(const Group& group, const void*, void*, std::int64_t count, DType dtype, Reduction,
                                   std::string_view what) {
  add("reduce_scatter", group, static_cast<std::int64_t>(group.size()) * count * size_bytes(dtype), what);
}

void NullTransport::all_gather(const Group& group, const void*, void*, std::int64_t count, std::string_view what) {
  add("all_gather", group, static_cast<std::int64_t>(group.size()) * count, what);
}

}    // namespace sheaf
