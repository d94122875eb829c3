#!/usr/bin/env bash
# Compiles Tenon's CUDA kernels for sm_80 and sm_90a, which takes no GPU, into build/cuda/bin/libtenon_cuda.so, and checks
# what the library shows to others.
#
#   tests/gpu/build_kernels.sh [jobs]
set -euo pipefail
cd "$(dirname "$0")/../.."
deploy/install_cuda.sh
cmake -S . -B build/cuda -G Ninja -DCMAKE_BUILD_TYPE=Release -DTENON_CUDA=ON -DTENON_BUILD_RPC=OFF \
  -DTENON_BUILD_TESTS=OFF >/dev/null
ninja -C build/cuda -j "${1:-$(nproc)}" tenon_cuda

library=build/cuda/bin/libtenon_cuda.so
tables=$(nm -D --defined-only "$library" | awk '$3 ~ /^tenon_/ {print $3}' | sort | xargs)
[ "$tables" = "tenon_adapter_kernels_3 tenon_graph_functions_1 tenon_model_kernels_4" ] || {
  echo "$library has the tables '$tables'" >&2
  exit 1
}
for architecture in sm_80 sm_90a; do
  grep -qa -- "-arch $architecture " "$library" || {
    echo "$library has no code for $architecture" >&2
    exit 1
  }
done
