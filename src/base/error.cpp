#include "base/error.h"

namespace sheaf::internal {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(fmt::format("{}:{}: {} [{} is false]", file, line, message, condition));
}

}    // namespace sheaf::internal
