# Compiler cache, linker, warnings and sanitizers: everything that holds for the whole build.

find_program(TENON_CCACHE ccache)
if(TENON_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${TENON_CCACHE})
endif()

# Not mold: before its 2.4 (Debian 12 has 1.10) a large .tbss may make the read-only segment reach beyond what is mapped, depending
# on where sections happen to fall, and then the program does not start ("cannot apply additional memory protection").
find_program(TENON_LLD ld.lld)
if(TENON_LLD)
  add_link_options(-fuse-ld=lld)
endif()

# Our own code only: targets made by tenon_library() and its kin link this.
add_library(tenon_warnings INTERFACE)
target_compile_options(tenon_warnings INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough
  -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC 12 sees overlapping copies in std::string's operator+ that are not there (GCC bug 105651).
  target_compile_options(tenon_warnings INTERFACE -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID MATCHES Clang)
  target_compile_options(tenon_warnings INTERFACE -Wthread-safety)
endif()

if(TENON_SANITIZER STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(TENON_SANITIZER STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(TENON_SANITIZER)
  message(FATAL_ERROR "TENON_SANITIZER is '${TENON_SANITIZER}': want address, thread or nothing")
endif()

# A sanitized build is compiled for every change and run once: line tables are all that its reports need.
if(TENON_SANITIZER)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
endif()

# Release keeps line tables: a stack trace from production names its lines, at no run-time cost.
string(APPEND CMAKE_CXX_FLAGS_RELEASE " -g1")
