#pragma once
// What transports share: the checks of a call's arguments and the texts of its failures.
#include <string>
#include <vector>

#include "comm/transport.h"

namespace sheaf {

// The caller's index in `group`. InternalError unless it is there once and all members are ranks of the transport, each once.
std::size_t own_index(const Transport& transport, const Group& group, std::string_view what);
// The same, and one piece to and from each member, the own one of the same size on both sides.
std::size_t check_exchange(const Transport& transport, const Group& group, std::span<const ConstBytes> send, std::span<const Bytes> recv,
                           std::string_view what);

struct LateRank {
  int rank;
  std::string where;    // what is known of it: "has made no call yet"; "" if nothing
};
// For RankFailure: who waited for whom, in what, how long, and what to change. At most 8 lines.
std::string late_text(int rank, std::string_view what, double waited_s, const std::vector<LateRank>& late);

// For InternalError: `rank` expected `bytes` in `what`, but `from` sent `sent_bytes` in `sent_what` ("" if unknown).
std::string disagreement_text(int rank, std::string_view what, std::int64_t bytes, int from, std::string_view sent_what,
                              std::string_view sent_bytes);

}    // namespace sheaf
