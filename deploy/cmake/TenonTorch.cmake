# LibTorch from the PyPI wheel, CPU libraries only.
#
# The wheel's own package file wants a CUDA toolkit, and its include folder carries copies of protobuf
# and fmt that would shadow the system's. So: two imported targets, and an include folder that shows
# LibTorch's own headers and nothing else. TENON_TORCH_DIR holds the folders `torch` and `nvidia`, as
# `pip install --target` leaves them (deploy/install_deps.sh does that).

if(NOT TENON_TORCH_DIR)
  if(DEFINED ENV{TENON_CACHE_DIR})
    set(_tenon_cache $ENV{TENON_CACHE_DIR})
  else()
    set(_tenon_cache $ENV{HOME}/.cache/tenon)
  endif()
  set(TENON_TORCH_DIR ${_tenon_cache}/torch-2.11.0)
endif()
set(TENON_TORCH_DIR ${TENON_TORCH_DIR} CACHE PATH "Folder that holds the wheel's torch/ and nvidia/")
set(_torch ${TENON_TORCH_DIR}/torch)
if(NOT EXISTS ${_torch}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "no LibTorch in ${TENON_TORCH_DIR}: run deploy/install_deps.sh or set TENON_TORCH_DIR")
endif()

set(_torch_include ${PROJECT_BINARY_DIR}/torch_include)
file(MAKE_DIRECTORY ${_torch_include})
foreach(_folder ATen c10 torch caffe2)
  file(CREATE_LINK ${_torch}/include/${_folder} ${_torch_include}/${_folder} SYMBOLIC)
endforeach()

add_library(Torch::c10 SHARED IMPORTED GLOBAL)
set_target_properties(Torch::c10 PROPERTIES
  IMPORTED_LOCATION ${_torch}/lib/libc10.so
  INTERFACE_INCLUDE_DIRECTORIES ${_torch_include})
add_library(Torch::cpu SHARED IMPORTED GLOBAL)
set_target_properties(Torch::cpu PROPERTIES
  IMPORTED_LOCATION ${_torch}/lib/libtorch_cpu.so
  INTERFACE_LINK_LIBRARIES Torch::c10
  INTERFACE_COMPILE_DEFINITIONS AT_PER_OPERATOR_HEADERS)

# libtorch_cpu needs the CUDA runtime and CUPTI libraries to load, even on a machine without a GPU.
list(APPEND CMAKE_BUILD_RPATH ${_torch}/lib ${TENON_TORCH_DIR}/nvidia/cu13/lib)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../lib/tenon/torch/lib:$ORIGIN/../lib/tenon/nvidia/cu13/lib")
add_link_options(-Wl,-rpath-link,${TENON_TORCH_DIR}/nvidia/cu13/lib)
