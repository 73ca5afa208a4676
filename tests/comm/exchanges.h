#pragma once
// Exchanges whose right result every rank can compute alone: the same suite for all host transports, in threads and in processes. Throws
// std::runtime_error where a piece is not what it must be.
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "comm/host_ops.h"
#include "comm/transport.h"

namespace sheaf::test {

inline void require(bool condition, const std::string& message) {
  if (!condition) throw std::runtime_error(message);
}

inline Group first_ranks(int size) {
  Group group(size);
  std::iota(group.begin(), group.end(), 0);
  return group;
}

inline std::uint64_t mixed(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// The piece from one rank to another in round `round`: a third of them empty, the others up to `most` bytes.
inline std::string piece_text(int from, int to, int round, std::size_t most) {
  const std::uint64_t key = mixed(mixed(mixed(round + 1) + from) + to);
  std::string text(key % 3 == 0 ? 0 : key / 3 % (most + 1), '\0');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(key >> (i % 8 * 8));
  return text;
}

inline void exchange_round(Transport& t, const Group& group, int round, std::size_t most) {
  std::vector<std::string> out, in;
  for (const int peer : group) {
    out.push_back(piece_text(t.rank(), peer, round, most));
    in.emplace_back(piece_text(peer, t.rank(), round, most).size(), '?');
  }
  std::vector<ConstBytes> send;
  std::vector<Bytes> recv;
  for (std::size_t i = 0; i < group.size(); ++i) {
    send.push_back({out[i].data(), static_cast<std::int64_t>(out[i].size())});
    recv.push_back({in[i].data(), static_cast<std::int64_t>(in[i].size())});
  }
  t.exchange(group, send, recv, "round " + std::to_string(round));
  for (std::size_t i = 0; i < group.size(); ++i) {
    require(in[i] == piece_text(group[i], t.rank(), round, most), "rank " + std::to_string(t.rank()) + " has wrong bytes from " +
                                                                      std::to_string(group[i]) + " in round " + std::to_string(round));
    std::fill(out[i].begin(), out[i].end(), '!');    // a sender may write again: a late copy would be caught
  }
}

// In every round all ranks draw the same partition into groups of shuffled ranks; each exchanges in its own.
inline void random_exchanges(Transport& t, int rounds, std::size_t most) {
  std::mt19937 rng(7);
  for (int round = 0; round < rounds; ++round) {
    Group shuffled = first_ranks(t.size());
    std::shuffle(shuffled.begin(), shuffled.end(), rng);
    for (auto begin = shuffled.begin(); begin != shuffled.end();) {
      const auto end = begin + 1 + static_cast<long>(rng() % static_cast<std::uint64_t>(shuffled.end() - begin));
      if (std::find(begin, end, t.rank()) != end) exchange_round(t, Group(begin, end), round, most);
      begin = end;
    }
  }
}

inline void host_ops_agree(Transport& t) {
  const auto text_of = [](int rank) { return std::string(static_cast<std::size_t>(rank) * 3, static_cast<char>('a' + rank)); };
  const std::vector<std::string> all = all_gather_text(t, text_of(t.rank()), "names");
  for (int rank = 0; rank < t.size(); ++rank) require(all.at(rank) == text_of(rank), "all_gather_text");
  for (int root = 0; root < t.size(); ++root)
    require(
        broadcast_text(t, t.rank() == root ? "from " + std::to_string(root) : "not this", root, "note") == "from " + std::to_string(root),
        "broadcast_text");
  barrier(t, "all here");
  expect_equal(t, "the same", "the plan");
}

inline void exchange_suite(Transport& t, int random_rounds) {
  for (int round = 0; round < 4; ++round) exchange_round(t, first_ranks(t.size()), round, 5000);
  Group backwards = first_ranks(t.size());
  std::reverse(backwards.begin(), backwards.end());
  exchange_round(t, backwards, 4, 300);
  Group same_parity;    // two groups at the same time
  for (int rank = t.rank() % 2; rank < t.size(); rank += 2) same_parity.push_back(rank);
  for (int round = 5; round < 20; ++round) exchange_round(t, same_parity, round, 300);
  exchange_round(t, {t.rank()}, 20, 300);
  exchange_round(t, first_ranks(t.size()), 21, 300000);    // beyond what MPI sends at once
  random_exchanges(t, random_rounds, 100);
  host_ops_agree(t);
}

}    // namespace sheaf::test
