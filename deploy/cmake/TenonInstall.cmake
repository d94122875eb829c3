# cmake --install: the programs, and beside them the libraries that no distribution packages.
#
#   bin/tenon-server  bin/tenonctl
#   lib/tenon/torch/lib          LibTorch for the CPU
#   lib/tenon/nvidia/cu13/lib    what libtorch_cpu needs to load, with or without a GPU
#
# CMAKE_INSTALL_RPATH (TenonTorch.cmake) finds them wherever the prefix is moved to. System libraries (gRPC, Protobuf,
# Abseil and their kin) come from the system's packages.

install(TARGETS tenon-server RUNTIME DESTINATION bin)
if(TARGET tenonctl)
  install(TARGETS tenonctl RUNTIME DESTINATION bin)
endif()

install(
  FILES ${_torch}/lib/libtorch_cpu.so ${_torch}/lib/libc10.so ${_torch}/lib/libgomp.so.1
  DESTINATION lib/tenon/torch/lib)
install(
  FILES ${TENON_TORCH_DIR}/nvidia/cu13/lib/libcudart.so.13
        ${TENON_TORCH_DIR}/nvidia/cu13/lib/libcupti.so.13
  DESTINATION lib/tenon/nvidia/cu13/lib)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION share/doc/tenon)
