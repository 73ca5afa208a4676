#include "comm/transport.h"

#include "base/error.h"

namespace sheaf {

void Transport::all_reduce(const Group&, void*, std::int64_t, DType, Reduction, std::string_view) {
  SHEAF_CHECK(false, "{} has no all_reduce of its own", name());
}
void Transport::reduce_scatter(const Group&, const void*, void*, std::int64_t, DType, Reduction, std::string_view) {
  SHEAF_CHECK(false, "{} has no reduce_scatter of its own", name());
}
void Transport::all_gather(const Group&, const void*, void*, std::int64_t, std::string_view) {
  SHEAF_CHECK(false, "{} has no all_gather of its own", name());
}

}    // namespace sheaf
