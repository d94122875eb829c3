# gRPC and Protobuf, from the system or, when a newer one is found, from CMAKE_PREFIX_PATH.

find_package(Protobuf REQUIRED)
find_package(gRPC REQUIRED CONFIG)
message(STATUS "gRPC ${gRPC_VERSION}, Protobuf ${Protobuf_VERSION}")
find_program(TENON_GRPC_PLUGIN grpc_cpp_plugin REQUIRED)

# tenon_proto_library(target ROOT dir FILES a.proto ... [GRPC]): C++ sources from files below ROOT, in one library.
function(tenon_proto_library target)
  cmake_parse_arguments(ARG "GRPC" "ROOT" "FILES;DEPS" ${ARGN})
  set(out ${PROJECT_BINARY_DIR}/gen)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  foreach(file ${ARG_FILES})
    string(REGEX REPLACE "\\.proto$" "" stem ${file})
    set(generated ${out}/${stem}.pb.cc ${out}/${stem}.pb.h)
    set(plugin)
    if(ARG_GRPC)
      list(APPEND generated ${out}/${stem}.grpc.pb.cc ${out}/${stem}.grpc.pb.h)
      set(plugin --grpc_out=${out} --plugin=protoc-gen-grpc=${TENON_GRPC_PLUGIN})
    endif()
    add_custom_command(
      OUTPUT ${generated}
      COMMAND protobuf::protoc -I ${ARG_ROOT} --cpp_out=${out} ${plugin} ${file}
      WORKING_DIRECTORY ${ARG_ROOT}
      DEPENDS ${ARG_ROOT}/${file}
      VERBATIM)
    list(APPEND sources ${generated})
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  target_link_libraries(${target} PUBLIC protobuf::libprotobuf ${ARG_DEPS})
  if(ARG_GRPC)
    target_link_libraries(${target} PUBLIC gRPC::grpc++)
  endif()
endfunction()
