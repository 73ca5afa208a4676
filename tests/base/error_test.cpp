#include "base/error.h"

#include <gtest/gtest.h>

TEST(Error, a_failed_check_names_file_line_and_values) {
  try {
    SHEAF_CHECK(1 == 2, "one is {}", 1);
    FAIL();
  } catch (const sheaf::InternalError& error) {
    EXPECT_NE(std::string(error.what()).find("error_test.cpp:7: one is 1"), std::string::npos) << error.what();
  }
}
