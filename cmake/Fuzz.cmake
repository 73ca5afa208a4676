# sheaf_fuzz(name LINKS...)      tests/fuzz/NAME.cpp has LLVMFuzzerTestOneInput, tests/fuzz/corpus/NAME its seeds.
#   Every build: linked with replay.cpp, a ctest entry fuzz_NAME that runs the seeds.
#   SHEAF_FUZZ (clang, build/fuzz): linked with libFuzzer, an entry of the same name and label nightly that searches for 60 s. What it finds
#   goes to build/fuzz/NAME; a crash is kept there as crash-*, and belongs into the corpus once it is mended.
option(SHEAF_FUZZ "libFuzzer in place of the replay (clang only)" OFF)
if(SHEAF_FUZZ)
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -O1)
  add_link_options(-fsanitize=address,undefined)
endif()

function(sheaf_fuzz name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINKS")
  add_executable(fuzz_${name} ${name}.cpp)
  target_include_directories(fuzz_${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests")
  target_link_libraries(fuzz_${name} PRIVATE ${arg_LINKS})
  set(seeds "${CMAKE_CURRENT_SOURCE_DIR}/corpus/${name}")
  if(NOT SHEAF_FUZZ)
    target_sources(fuzz_${name} PRIVATE replay.cpp)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} "${seeds}")
    set_tests_properties(fuzz_${name} PROPERTIES TIMEOUT 120)
    return()
  endif()
  set(found "${CMAKE_BINARY_DIR}/${name}")
  file(MAKE_DIRECTORY "${found}")
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  add_test(NAME fuzz_${name} COMMAND fuzz_${name} "${found}" "${seeds}" -max_total_time=60 -timeout=10 -rss_limit_mb=2048
    -malloc_limit_mb=1024 -print_final_stats=1 "-artifact_prefix=${found}-")
  set_tests_properties(fuzz_${name} PROPERTIES LABELS nightly TIMEOUT 180)
  add_dependencies(fuzzers fuzz_${name})
endfunction()
