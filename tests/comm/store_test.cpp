// Ranks that meet at a TCPStore. Here they are threads, each with its own connection.
#include "comm/store.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>

#include "comm/exchanges.h"
#include "comm/rank_threads.h"

using namespace sheaf;
using namespace sheaf::test;

namespace {

// Listens on a port of the system's choice while it lives.
class Listener {
 public:
  Listener() : socket_(::socket(AF_INET6, SOCK_STREAM, 0)) {
    sockaddr_in6 address{};
    address.sin6_family = AF_INET6;
    address.sin6_addr = in6addr_any;
    socklen_t length = sizeof address;
    if (::bind(socket_, reinterpret_cast<sockaddr*>(&address), length) || ::listen(socket_, 1))
      throw std::runtime_error("no port to listen on");
    ::getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin6_port);
  }
  ~Listener() { ::close(socket_); }
  int port() const { return port_; }

 private:
  int socket_, port_;
};

int free_port() { return Listener().port(); }

Launch launch(int rank, int size, int port) {
  return {.by = Launch::By::torchrun, .rank = rank, .size = size, .local_rank = rank, .master_addr = "127.0.0.1", .master_port = port};
}

std::string error_of(const Launch& l, double timeout_s) {
  try {
    make_store_transport(l, timeout_s);
  } catch (const UserError& error) {
    return error.what();
  }
  return "no error";
}

}    // namespace

TEST(Store, the_suite_passes_on_3_ranks) {
  const int port = free_port();
  for (const Outcome& o : run_ranks(3, [&](int rank) { exchange_suite(*make_store_transport(launch(rank, 3, port), 60), 10); }))
    EXPECT_EQ(o.text, "");
}

TEST(Store, all_are_clients_where_the_agent_has_the_store_and_attempts_do_not_mix) {
  const int port = free_port();
  const auto agent = make_store_transport(launch(0, 1, port), 1);
  for (const int attempt : {0, 1}) {
    for (const Outcome& o : run_ranks(2, [&](int rank) {
           Launch l = launch(rank, 2, port);
           l.agent_has_store = true, l.attempt = attempt + 5;
           const auto t = make_store_transport(l, 30);
           exchange_round(*t, {0, 1}, attempt, 100);
           if (attempt == 0) t->abort("of the first attempt");
         }))
      EXPECT_EQ(o.text, "");
  }
}

TEST(Store, a_port_in_use_is_the_users_to_mend) {
  const Listener taken;
  const std::string text = error_of(launch(0, 2, taken.port()), 5);
  EXPECT_TRUE(text.starts_with("rank 0 cannot listen on 127.0.0.1:" + std::to_string(taken.port()))) << text;
  EXPECT_TRUE(has(text, "choose another MASTER_PORT")) << text;
}

TEST(Store, nobody_there_is_said_within_the_time_limit) {
  const auto begin = std::chrono::steady_clock::now();
  const int port = free_port();
  const std::string text = error_of(launch(1, 2, port), 1);
  EXPECT_TRUE(text.starts_with("rank 1 cannot reach rank 0 at 127.0.0.1:" + std::to_string(port) + " within 1 s")) << text;
  EXPECT_TRUE(has(text, "check MASTER_ADDR and MASTER_PORT")) << text;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
}

TEST(Store, a_late_rank_is_named) {
  const int port = free_port();
  const auto outcomes = run_ranks(3, [&](int rank) {
    if (rank == 2) return;
    barrier(*make_store_transport(launch(rank, 3, port), 1), "start");
  });
  for (const int rank : {0, 1}) {
    EXPECT_EQ(outcomes[rank].kind, Outcome::rank_failure);
    EXPECT_TRUE(outcomes[rank].text.starts_with(fmt::format("rank {} waited 1 s in 'start' for rank 2\n", rank))) << outcomes[rank].text;
    EXPECT_LT(outcomes[rank].seconds, 10);
  }
}

TEST(Store, abort_reaches_the_others) {
  const int port = free_port();
  const auto outcomes = run_ranks(3, [&](int rank) {
    const auto t = make_store_transport(launch(rank, 3, port), 30);
    barrier(*t, "start");
    if (rank == 1) t->abort("rank 1: disk full");
    barrier(*t, "end");
  });
  for (const Outcome& o : outcomes) {
    EXPECT_EQ(o.kind, Outcome::rank_failure);
    EXPECT_EQ(o.text, "rank 1: disk full");
    EXPECT_LT(o.seconds, 10);
  }
}

TEST(Store, disagreeing_sizes_name_both_sides) {
  const int port = free_port();
  const auto outcomes = run_ranks(2, [&](int rank) {
    const auto t = make_store_transport(launch(rank, 2, port), 2);
    char out[8] = {}, in[12];
    std::array<ConstBytes, 2> send;
    std::array<Bytes, 2> recv;
    send[1 - rank] = {out, 8}, recv[1 - rank] = {in, rank == 0 ? 8 : 12};
    t->exchange({0, 1}, send, recv, rank == 0 ? "sum of @a" : "sum of @b");
  });
  EXPECT_EQ(outcomes[1].kind, Outcome::internal_error);
  EXPECT_EQ(outcomes[1].text, "rank 1 expects 12 bytes from rank 0 in 'sum of @b', which sent 8 in 'sum of @a'");
}
