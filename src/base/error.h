#pragma once
#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace sheaf {

// Something the user can mend: bad file, bad key, missing device. Caught in main: message, exit code 2, no stack.
// The message says where, what was found, what was wanted and what to change.
struct UserError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The run cannot go on because of another rank: it failed, or did not come in time. Says which rank, what was waited for and how long.
struct RankFailure : UserError {
  using UserError::UserError;
};

// A bug of ours. The message says file, line and what was violated; the pass runner puts the pass and the dump in front.
struct InternalError : std::logic_error {
  using std::logic_error::logic_error;
};

template <class... A>
[[noreturn]] void user_error(fmt::format_string<A...> format, A&&... args) {
  throw UserError(fmt::format(format, std::forward<A>(args)...));
}

namespace internal {
[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);
}    // namespace internal

// For our own invariants only: user input must not reach one.
#define SHEAF_CHECK(condition, ...)                                                                \
  do {                                                                                             \
    if (!(condition)) [[unlikely]]                                                                 \
      ::sheaf::internal::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (0)

}    // namespace sheaf
