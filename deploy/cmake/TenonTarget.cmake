# One CMake target a folder: tenon_library(tenon_registry SRCS ... DEPS ...).

function(_tenon_configure target)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  target_include_directories(${target} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${target} PUBLIC ${ARG_DEPS} PRIVATE tenon_warnings)
endfunction()

function(tenon_library target)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_library(${target} STATIC ${ARG_SRCS})
  _tenon_configure(${target} ${ARGN})
endfunction()

function(tenon_executable target)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${target} ${ARG_SRCS})
  _tenon_configure(${target} ${ARGN})
endfunction()

# tenon_test(block_pool_test SRCS ... DEPS ... [TIMEOUT seconds]): a GoogleTest binary, registered as one ctest entry.
function(tenon_test target)
  cmake_parse_arguments(ARG "" "TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  add_executable(${target} ${ARG_SRCS})
  _tenon_configure(${target} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} GTest::gmock_main)
  target_compile_definitions(${target} PRIVATE TENON_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${target} COMMAND ${target})
  set_tests_properties(${target} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()
