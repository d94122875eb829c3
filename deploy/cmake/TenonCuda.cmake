# Tenon's CUDA kernels: one shared library that the server opens when --device names a GPU.
#
# Nothing else is linked with CUDA. nvcc comes from deploy/install_cuda.sh, unless CMAKE_CUDA_COMPILER names another.

if(NOT CMAKE_CUDA_COMPILER)
  if(DEFINED ENV{TENON_CACHE_DIR})
    set(_tenon_cache $ENV{TENON_CACHE_DIR})
  else()
    set(_tenon_cache $ENV{HOME}/.cache/tenon)
  endif()
  find_program(_tenon_nvcc nvcc PATHS ${_tenon_cache}/cuda-13.0/nvidia/cu13/bin NO_DEFAULT_PATH)
  find_program(_tenon_nvcc nvcc)
  if(NOT _tenon_nvcc)
    message(FATAL_ERROR "no nvcc: run deploy/install_cuda.sh or set CMAKE_CUDA_COMPILER")
  endif()
  set(CMAKE_CUDA_COMPILER ${_tenon_nvcc})
endif()
if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real)
endif()
if(TENON_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${TENON_CCACHE})
endif()
set(CMAKE_CUDA_STANDARD 17)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)  # LibTorch's, which is there already
enable_language(CUDA)

set(TENON_CUDA_SOURCES
  ${PROJECT_SOURCE_DIR}/adapters/kernels/cuda/bottlenecks.cu
  ${PROJECT_SOURCE_DIR}/adapters/kernels/cuda/deltas.cu
  ${PROJECT_SOURCE_DIR}/adapters/kernels/cuda/shrink_tiles.cu
  ${PROJECT_SOURCE_DIR}/server/kernels/cuda/attention.cu
  ${PROJECT_SOURCE_DIR}/server/kernels/cuda/elementwise.cu
  ${PROJECT_SOURCE_DIR}/server/kernels/cuda/graph.cu
  ${PROJECT_SOURCE_DIR}/server/kernels/cuda/prefill_attention.cu
  ${PROJECT_SOURCE_DIR}/server/kernels/cuda/sampling.cu)
add_library(tenon_cuda SHARED ${TENON_CUDA_SOURCES})
target_include_directories(tenon_cuda PRIVATE ${PROJECT_SOURCE_DIR})
target_compile_options(tenon_cuda PRIVATE -Xcompiler=-Wall,-Wextra -Werror=all-warnings -lineinfo)
set_target_properties(tenon_cuda PROPERTIES
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_RUNTIME_OUTPUT_DIRECTORY}
  INSTALL_RPATH "$ORIGIN/nvidia/cu13/lib")
