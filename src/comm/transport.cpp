#include "comm/transport.h"

#include <algorithm>
#include <thread>

#include "base/error.h"
#include "base/text.h"
#include "comm/checks.h"

namespace sheaf {

void Transport::all_reduce(const Group&, void*, std::int64_t, DType, Reduction, std::string_view what) {
  SHEAF_CHECK(reduces(), "transport {} has no all_reduce of its own ({})", name(), what);
}
void Transport::reduce_scatter(const Group&, const void*, void*, std::int64_t, DType, Reduction, std::string_view what) {
  SHEAF_CHECK(reduces(), "transport {} has no reduce_scatter of its own ({})", name(), what);
}
void Transport::all_gather(const Group&, const void*, void*, std::int64_t, std::string_view what) {
  SHEAF_CHECK(reduces(), "transport {} has no all_gather of its own ({})", name(), what);
}

void Transport::wait_until(const std::function<bool()>& done) {
  for (; !done(); std::this_thread::yield()) check();
}

namespace {
std::string listed(const Group& group) {
  std::vector<std::string> ranks;
  for (const int rank : group) ranks.push_back(std::to_string(rank));
  return join(ranks, " ");
}
}    // namespace

std::size_t own_index(const Transport& transport, const Group& group, std::string_view what) {
  const auto own = std::find(group.begin(), group.end(), transport.rank());
  SHEAF_CHECK(own != group.end(), "rank {} calls '{}' of a group that it is not in: {}", transport.rank(), what, listed(group));
  Group sorted = group;
  std::sort(sorted.begin(), sorted.end());
  SHEAF_CHECK(sorted.front() >= 0 && sorted.back() < transport.size() && std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(),
              "'{}': a group of {} ranks must name each once: {}", what, transport.size(), listed(group));
  return static_cast<std::size_t>(own - group.begin());
}

std::size_t check_exchange(const Transport& transport, const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv,
                           std::string_view what) {
  const std::size_t own = own_index(transport, group, what);
  SHEAF_CHECK(send.size() == group.size() && recv.size() == group.size(),
              "'{}': {} pieces to send and {} to receive in a group of {} ranks", what, send.size(), recv.size(), group.size());
  SHEAF_CHECK(send[own].count == recv[own].count, "'{}': rank {} sends itself {} bytes and expects {}", what, transport.rank(),
              send[own].count, recv[own].count);
  return own;
}

std::string late_text(int rank, std::string_view what, double waited_s, const std::vector<LateRank>& late) {
  std::vector<std::string> ranks;
  std::string details;
  constexpr std::size_t kDetails = 5;
  for (std::size_t i = 0; i < late.size(); ++i) {
    if (i < 16) ranks.push_back(std::to_string(late[i].rank));
    if (i < kDetails && !late[i].where.empty()) details += fmt::format("\n  rank {} {}", late[i].rank, late[i].where);
  }
  if (late.size() > 16) ranks.push_back(fmt::format("and {} more", late.size() - 16));
  return fmt::format("rank {} waited {:.3g} s in '{}' for rank{} {}{}\nif it is only slow, raise run.timeout_s", rank, waited_s, what,
                     late.size() == 1 ? "" : "s", join(ranks, ", "), details);
}

std::string disagreement_text(int rank, std::string_view what, std::int64_t bytes, int from, std::string_view sent_what,
                              std::string_view sent_bytes) {
  return fmt::format("rank {} expects {} bytes from rank {} in '{}', which sent {}{}", rank, bytes, from, what, sent_bytes,
                     sent_what.empty() ? "" : fmt::format(" in '{}'", sent_what));
}

}    // namespace sheaf
