// Ranks that are threads: bytes arrive, and every way in which one rank fails is seen by the others, soon and by name.
#include "comm/local.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstring>

#include "comm/exchanges.h"
#include "comm/rank_threads.h"

using namespace sheaf;
using namespace sheaf::test;

namespace {

// All ranks but `late` exchange; `late` does `its` instead.
std::vector<Outcome> all_but(LocalWorld& world, int late, const std::function<void(Transport&)>& its) {
  return run_ranks(world.size(), [&](int rank) {
    if (rank == late) return its(world.at(rank));
    exchange_round(world.at(rank), first_ranks(world.size()), 0, 100);
  });
}

void send_to_next(Transport& t, std::int64_t bytes, std::int64_t expected, std::string_view what) {
  std::vector<char> out(100), in(100);
  const int other = 1 - t.rank();
  t.exchange({t.rank(), other}, std::array{ConstBytes{}, ConstBytes{out.data(), bytes}}, std::array{Bytes{}, Bytes{in.data(), expected}},
             what);
}

}    // namespace

TEST(Local, the_suite_passes_on_1_to_16_ranks) {
  for (int size = 1; size <= 16; ++size) {
    LocalWorld world(size, 60);
    for (const Outcome& o : run_ranks(size, [&](int rank) { exchange_suite(world.at(rank), 50); })) EXPECT_EQ(o.text, "") << size;
  }
}

TEST(Local, thousands_of_random_exchanges) {
  LocalWorld world(7, 60);
  for (const Outcome& o : run_ranks(7, [&](int rank) { random_exchanges(world.at(rank), 5000, 200); })) EXPECT_EQ(o.text, "");
}

TEST(Local, a_rank_that_never_came_is_named_by_all_others) {
  LocalWorld world(4, 0.2);
  const std::vector<Outcome> outcomes = all_but(world, 2, [](Transport&) {});
  for (const int rank : {0, 1, 3}) {
    const Outcome& o = outcomes[rank];
    EXPECT_EQ(o.kind, Outcome::rank_failure);
    EXPECT_EQ(o.text, "rank " + std::to_string(rank) +
                          " waited 0.2 s in 'round 0' for rank 2\n  rank 2 has made no call yet\nif it is only slow, raise run.timeout_s");
    EXPECT_GE(o.seconds, 0.2);
    EXPECT_LT(o.seconds, 5);
  }
}

TEST(Local, where_the_late_rank_was_last_is_said) {
  LocalWorld world(3, 0.2);
  const auto outcomes = run_ranks(3, [&](int rank) {
    barrier(world.at(rank), "start");
    if (rank != 2) barrier(world.at(rank), "gather of @w");
  });
  EXPECT_TRUE(has(outcomes[0].text, "rank 0 waited 0.2 s in 'gather of @w' for rank 2\n  rank 2 has left 'start' and made no call since"))
      << outcomes[0].text;
}

TEST(Local, a_rank_in_another_call_is_said_to_be_there) {
  LocalWorld world(3, 0.3);
  std::atomic<int> in_pair = 0;
  const auto outcomes = run_ranks(3, [&](int rank) {
    if (rank == 2) return;
    const Group group = rank == 0 ? Group{0, 1} : Group{1, 2};    // 1 waits for 2, which never comes; 0 waits for 1
    if (rank == 0) {
      while (!in_pair) std::this_thread::yield();
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    ++in_pair;
    std::array<ConstBytes, 2> send;
    std::array<Bytes, 2> recv;
    world.at(rank).exchange(group, send, recv, rank == 0 ? "sum" : "gather");
  });
  EXPECT_TRUE(has(outcomes[1].text, "in 'gather' for rank 2")) << outcomes[1].text;
  EXPECT_TRUE(has(outcomes[0].text, "in 'sum' for rank 1")) << outcomes[0].text;
}

TEST(Local, a_receiver_that_does_not_come_is_named) {
  LocalWorld world(2, 0.2);
  const auto outcomes = run_ranks(2, [&](int rank) {
    if (rank == 0) send_to_next(world.at(0), 10, 0, "send");
  });
  EXPECT_TRUE(has(outcomes[0].text, "in 'send' for rank 1")) << outcomes[0].text;
}

TEST(Local, who_comes_after_a_failure_fails_at_once_and_leaves_no_memory_in_use) {
  LocalWorld world(2, 0.2);
  const auto outcomes = run_ranks(2, [&](int rank) {
    if (rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(600));
    const auto begin = std::chrono::steady_clock::now();
    try {
      send_to_next(world.at(rank), 100, 100, "send");
    } catch (const RankFailure&) {
      if (rank == 1) {
        EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(150));
      }
      throw;
    }
  });
  EXPECT_TRUE(has(outcomes[1].text, "rank 0 waited 0.2 s in 'send' for rank 1")) << outcomes[1].text;
}

TEST(Local, abort_wakes_everybody_with_its_text) {
  LocalWorld world(5, 60);
  const auto outcomes = all_but(world, 3, [](Transport& t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    t.abort("rank 3: disk full");
    t.check();
  });
  for (const Outcome& o : outcomes) {
    EXPECT_EQ(o.kind, Outcome::rank_failure);
    EXPECT_EQ(o.text, "rank 3: disk full");
    EXPECT_LT(o.seconds, 10);
  }
  EXPECT_THROW(exchange_round(world.at(0), {0}, 0, 1), RankFailure);    // later as well
}

TEST(Local, an_exception_in_one_rank_ends_the_others) {
  LocalWorld world(4, 60);
  const auto outcomes = run_ranks(4, [&](int rank) {
    try {
      for (int round = 0;; ++round) {
        exchange_round(world.at(rank), first_ranks(4), round, 50);
        if (rank == 1 && round == 20) throw std::runtime_error("no more rows");
      }
    } catch (const std::runtime_error& error) {
      world.at(rank).abort(fmt::format("rank {}: {}", rank, error.what()));
      throw;
    }
  });
  EXPECT_EQ(outcomes[1].text, "no more rows");
  for (const int rank : {0, 2, 3}) EXPECT_EQ(outcomes[rank].text, "rank 1: no more rows");
}

TEST(Local, disagreeing_sizes_name_both_sides) {
  LocalWorld world(2, 60);
  const auto outcomes =
      run_ranks(2, [&](int rank) { send_to_next(world.at(rank), 8, rank == 0 ? 8 : 12, rank == 0 ? "sum of @a" : "sum of @b"); });
  for (const Outcome& o : outcomes) {    // the one that expected, and the one that sent
    EXPECT_EQ(o.kind, Outcome::internal_error);
    EXPECT_TRUE(has(o.text, "rank 1 expects 12 bytes from rank 0 in 'sum of @b', which sent 8 in 'sum of @a'")) << o.text;
  }
}

TEST(Local, groups_that_make_no_sense_are_caught) {
  LocalWorld world(3, 1);
  for (const Group& group : {Group{0, 1}, Group{2, 2}, Group{2, 3}, Group{-1, 2}, Group{}}) {
    const std::vector<ConstBytes> send(group.size());
    const std::vector<Bytes> recv(group.size());
    EXPECT_THROW(world.at(2).exchange(group, send, recv, "x"), InternalError);
  }
  EXPECT_THROW(world.at(2).exchange({2}, {}, {}, "x"), InternalError);
  EXPECT_THROW(world.at(0).all_reduce({0}, nullptr, 0, DType::fp32, Reduction::sum, "x"), InternalError);
}

namespace {
// A device whose copies happen when it is waited for.
struct Copy {
  void* dst;
  const void* src;
  std::int64_t bytes;
};
thread_local std::vector<Copy> t_queue;
void enqueue(void* dst, const void* src, std::int64_t bytes) { t_queue.push_back({dst, src, bytes}); }
void drain() {
  for (const Copy& c : t_queue) std::memcpy(c.dst, c.src, static_cast<std::size_t>(c.bytes));
  t_queue.clear();
}
std::atomic<bool> g_reading = false;
void slow_copy(void* dst, const void* src, std::int64_t bytes) {
  g_reading = true;
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  std::memcpy(dst, src, static_cast<std::size_t>(bytes));
  g_reading = false;
}
void broken_copy(void*, const void*, std::int64_t) { throw std::runtime_error("device lost"); }
}    // namespace

TEST(Local, asynchronous_copies_are_waited_for) {
  LocalWorld world(4, 60, {enqueue, drain});
  for (const Outcome& o : run_ranks(4, [&](int rank) {
         std::string made = "????", got(4, '?');
         for (int i = 0; i < 200; ++i) {
           const std::string value = fmt::format("{:04}", i);
           enqueue(made.data(), value.data(), 4);    // the sender's own work, still under way when it posts
           const Group ring = rank % 2 ? Group{rank - 1, rank} : Group{rank, rank + 1};
           std::array<ConstBytes, 2> send{ConstBytes{made.data(), 4}, {made.data(), 4}};
           std::array<Bytes, 2> recv{Bytes{got.data(), 4}, {got.data(), 4}};
           send[rank % 2] = {}, recv[rank % 2] = {};
           world.at(rank).exchange(ring, send, recv, "swap");
           require(got == value, "stale bytes");
         }
       }))
    EXPECT_EQ(o.text, "");
}

TEST(Local, a_copy_that_fails_frees_the_sender) {
  LocalWorld world(2, 0.5, {broken_copy, drain});
  const auto outcomes = run_ranks(2, [&](int rank) { send_to_next(world.at(rank), rank == 0 ? 8 : 0, rank == 0 ? 0 : 8, "send"); });
  EXPECT_EQ(outcomes[1].text, "device lost");
  // Rank 0 has its memory back. It may miss the empty piece, which the failing rank withdraws.
  if (outcomes[0].kind != Outcome::ok) {
    EXPECT_TRUE(has(outcomes[0].text, "in 'send' for rank 1")) << outcomes[0].text;
  }
}

TEST(Local, a_sender_whose_time_is_up_stays_while_its_memory_is_read) {
  LocalWorld world(2, 0.1, {slow_copy, drain});
  const auto outcomes = run_ranks(2, [&](int rank) {
    try {
      send_to_next(world.at(rank), rank == 0 ? 8 : 0, rank == 0 ? 0 : 8, "send");
    } catch (const RankFailure&) {
      EXPECT_FALSE(g_reading);
      throw;
    }
  });
  EXPECT_TRUE(has(outcomes[0].text, "rank 0 waited 0.1 s in 'send' for rank 1\n  rank 1 is still in 'send'")) << outcomes[0].text;
}
