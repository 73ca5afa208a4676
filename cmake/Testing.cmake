# sheaf_test(name LINKS... [LABELS...] [TIMEOUT s] [ORACLE])      sources: all of tests/NAME/*.cpp
#   One executable and one ctest entry per folder of tests/. Labels choose: none = every run; nightly = slow; gpu = needs one;
#   threads = also under ThreadSanitizer. ORACLE: reads .cache/oracle, which tests/oracle/make_oracle.py writes once, before.
#   Tests run in the top folder and name files from there: no path is compiled in, so ccache serves every checkout.
#   Not gtest_discover_tests: a process that loads LibTorch takes 0.2 s to start, and a CUDA build cannot run where it is built.
find_package(GTest REQUIRED)
include(ProcessorCount)

set(SHEAF_PYTHON "${CMAKE_SOURCE_DIR}/.venv/bin/python" CACHE FILEPATH "Python with requirements/cpu.txt")

function(sheaf_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "ORACLE" "TIMEOUT" "LINKS;LABELS")
  file(GLOB sources CONFIGURE_DEPENDS "${name}/*.cpp")
  add_executable(${name}_test ${sources})
  target_include_directories(${name}_test PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(${name}_test PRIVATE ${arg_LINKS} GTest::gtest_main)
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_test(NAME ${name} COMMAND ${name}_test --gtest_brief=1 WORKING_DIRECTORY "${CMAKE_SOURCE_DIR}")
  set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
    FAIL_REGULAR_EXPRESSION "] 0 tests from"
    ENVIRONMENT "OMP_NUM_THREADS=1;${SHEAF_TEST_ENVIRONMENT}")
  if(arg_ORACLE)
    set_tests_properties(${name} PROPERTIES FIXTURES_REQUIRED oracle)
  endif()
endfunction()

# Under these options the prebuilt LibTorch 2.13 gives no false report, with one or more OpenMP threads, and no suppression file
# is needed. TSan sees only what we compiled: races of Sheaf's own code, not two ranks writing one tensor inside ATen kernels.
set(SHEAF_TEST_ENVIRONMENT "")
if(SHEAF_SANITIZE)
  set(SHEAF_TEST_ENVIRONMENT
    "ASAN_OPTIONS=strict_init_order=1:detect_stack_use_after_return=1"
    "UBSAN_OPTIONS=print_stacktrace=1"
    "TSAN_OPTIONS=ignore_noninstrumented_modules=1:second_deadlock_stack=1")
endif()
