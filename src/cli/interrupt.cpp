#include "cli/interrupt.h"

#include <csignal>
#include <cstdio>

#include "data/tokenize.h"

namespace sheaf {
namespace {

std::atomic<bool> g_stop = false;    // lock-free, so a signal handler may set it

void on_interrupt(int signal) {
  g_stop = true;
  std::signal(signal, SIG_DFL);
}

}    // namespace

int until_interrupted(const std::function<int(const std::atomic<bool>&)>& work) {
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  try {
    return work(g_stop);
  } catch (const Interrupted&) {
    std::fflush(stdout);
    std::fprintf(stderr, "sheaf: interrupted\n");
    return 130;
  }
}

}    // namespace sheaf
