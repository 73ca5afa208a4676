# sheaf_hip_kernels(files.cu...)   the target `hip`: compiles them for AMD's gfx90a, objects only, so that they stay in the common subset
#   of CUDA and HIP. Not part of a build. There is no such target without hipcc (Debian: hipcc).
find_program(SHEAF_HIPCC hipcc NO_CACHE)

function(sheaf_hip_kernels)
  if(NOT SHEAF_HIPCC)
    return()
  endif()
  set(objects "")
  foreach(file IN LISTS ARGN)
    set(object "${CMAKE_CURRENT_BINARY_DIR}/hip/${file}.o")
    get_filename_component(folder "${object}" DIRECTORY)
    file(MAKE_DIRECTORY "${folder}")
    # HIP_PLATFORM: with nvcc on PATH hipcc would call that.
    add_custom_command(OUTPUT "${object}"
      COMMAND "${CMAKE_COMMAND}" -E env HIP_PLATFORM=amd "${SHEAF_HIPCC}" -x hip --offload-arch=gfx90a -std=c++20 -O3 -Wall -Werror
              "-I${CMAKE_SOURCE_DIR}/src" -MD -MF "${object}.d" -c "${CMAKE_CURRENT_SOURCE_DIR}/${file}" -o "${object}"
      DEPENDS "${file}" DEPFILE "${object}.d" VERBATIM COMMENT "hipcc ${file}")
    list(APPEND objects "${object}")
  endforeach()
  add_custom_target(hip DEPENDS ${objects})
endfunction()
