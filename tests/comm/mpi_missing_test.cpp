// This program has no sheaf_mpi.so beside it, as one that was built without MPI.
#include <gtest/gtest.h>

#include "base/error.h"
#include "comm/mpi.h"

TEST(Mpi, a_missing_plugin_is_named_with_what_to_install) {
  try {
    sheaf::make_mpi_transport(1);
    FAIL();
  } catch (const sheaf::UserError& error) {
    const std::string text = error.what();
    EXPECT_NE(text.find("sheaf_mpi.so' is missing"), std::string::npos) << text;
    EXPECT_NE(text.find("apt-get install libopenmpi-dev openmpi-bin"), std::string::npos) << text;
  }
}
