# Kernels that are compiled once for each instruction set, and chosen at run time:
# tenon_isa_sources(gemm_kernels_avx512.cc FLAGS ${TENON_AVX512_FLAGS}).

# Multiply-adds are fused where the source says so, everywhere alike. GCC 12 warns of its own AVX-512
# headers (PR 105593).
set(TENON_AVX2_FLAGS -mavx2 -mfma -ffp-contract=off)
set(TENON_AVX512_FLAGS ${TENON_AVX2_FLAGS} -mavx512f -mavx512bw -mavx512dq -mavx512vl -Wno-maybe-uninitialized
    -Wno-uninitialized)

# For sources of the folder whose CMakeLists.txt calls it. No sanitized test computes with them, and sanitized they would
# take ten times as long to compile: they are there because the engine links them.
function(tenon_isa_sources)
  cmake_parse_arguments(ARG "" "" "FLAGS" ${ARGN})
  if(TENON_SANITIZER)
    list(APPEND ARG_FLAGS -fno-sanitize=all)
  elseif(ARG_FLAGS)
    list(PREPEND ARG_FLAGS -O3)
  endif()
  set_source_files_properties(${ARG_UNPARSED_ARGUMENTS} PROPERTIES COMPILE_OPTIONS "${ARG_FLAGS}")
endfunction()
