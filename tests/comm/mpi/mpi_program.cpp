// One rank of tests/comm/mpi_test.py: mpi_program MODE, under mpirun. Behaves as the main program does: message, then exit code.
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <thread>

#include "base/error.h"
#include "comm/exchanges.h"
#include "comm/launch.h"
#include "comm/mpi.h"

using namespace sheaf;
using namespace sheaf::test;

namespace {

void swap_with_next(Transport& t, std::int64_t bytes, std::int64_t expected, std::string_view what) {
  std::vector<char> out(bytes, static_cast<char>('a' + t.rank())), in(expected);
  const int other = t.rank() ^ 1;
  std::array<ConstBytes, 2> send;
  std::array<Bytes, 2> recv;
  send[other % 2] = {out.data(), bytes}, recv[other % 2] = {in.data(), expected};
  t.exchange({t.rank() & ~1, t.rank() | 1}, send, recv, what);
  require(std::count(in.begin(), in.end(), static_cast<char>('a' + other)) == expected, "wrong bytes");
}

void run(const std::string& mode) {
  const Launch launch = detect_launch();
  const double timeout_s = mode == "late" ? 1 : 60;
  const auto transport = make_mpi_transport(timeout_s);
  Transport& t = *transport;
  require(launch.by == Launch::By::mpirun && launch.rank == t.rank() && launch.size == t.size(), "launch and MPI disagree");
  if (mode == "suite") {
    exchange_suite(t, 500);
    if (t.rank() == 0) std::printf("the suite passed on %d ranks\n", t.size());
  } else if (mode == "large") {
    swap_with_next(t, t.rank() == 0 ? (std::int64_t(5) << 29) + 3 : 0, t.rank() == 0 ? 0 : (std::int64_t(5) << 29) + 3, "large");
  } else if (mode == "late") {
    barrier(t, "start");
    if (t.rank() != 2) barrier(t, "gather of @w");
    std::this_thread::sleep_for(std::chrono::seconds(60));
  } else if (mode == "kill") {
    barrier(t, "start");
    if (t.rank() == 2) ::kill(::getpid(), SIGKILL);
    barrier(t, "end");
  } else if (mode == "abort" || mode == "abort-waits") {
    barrier(t, "start");
    if (t.rank() == 1) {
      t.abort("rank 1: disk full");
      if (mode == "abort-waits") std::this_thread::sleep_for(std::chrono::seconds(1));    // so that the others see the text
      user_error("disk full");
    }
    barrier(t, "end");
  } else if (mode == "unnoticed") {    // nobody tells the transport
    barrier(t, "start");
    if (t.rank() == 3) user_error("no such file");
    barrier(t, "end");
  } else if (mode == "longer" || mode == "shorter") {
    swap_with_next(t, t.rank() == 0 ? (mode == "longer" ? 12 : 4) : 8, 8, "sum of @a");
    barrier(t, "end");
  }
}

}    // namespace

int main(int, char** argv) try {
  run(argv[1]);
  return 0;
} catch (const UserError& error) {
  std::fprintf(stderr, "test: %s\n", error.what());
  return 2;
} catch (const std::exception& error) {
  std::fprintf(stderr, "test: internal error: %s\n", error.what());
  return 1;
}
