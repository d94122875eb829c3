#!/usr/bin/env bash
# Packs what tests/gpu/run.sh needs on a machine with a GPU and LibTorch 2.11 (Python's torch) but without Tenon's other
# dependencies: the test and benchmark programs of build/release, the kernels of build/cuda, the system libraries that they
# load, and the golden files. The programs are the very ones that run on a CPU; they open CUDA when they are told to.
#
#   tests/gpu/make_bundle.sh [FILE]      default: build/gpu-bundle.tar.xz; at most 60 MB
set -euo pipefail
cd "$(dirname "$0")/../.."
output=${1:-build/gpu-bundle.tar.xz}
programs=(bottleneck_plan_test delta_plan_test device_tables_test cuda_ops_test device_graph_test sampling_cuda_test
          decode_graphs_test golden_test methods_golden_test merge_golden_test engine_benchmark)
ninja -C build/release "${programs[@]}"
tests/gpu/build_kernels.sh

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
mkdir -p "$stage/bin" "$stage/lib" "$stage/tests/golden" "$stage/tests/gpu"
for program in "${programs[@]}"; do
  strip -o "$stage/bin/$program" "build/release/bin/$program"
  ldd "build/release/bin/$program"
done | awk '$2 == "=>" && $3 ~ /^\// {print $3}' | sort -u >"$stage/libraries"
# LibTorch is the machine's own, and so are the C library and its kin.
grep -v -E '/(libtorch|libc10|libgomp|libcudart|libcupti|libc\.|libm\.|libdl|libpthread|librt\.|ld-linux)' \
  "$stage/libraries" | sort -u | xargs cp -t "$stage/lib" -L
rm "$stage/libraries"
strip "$stage"/lib/*.so* 2>/dev/null || true
cp build/cuda/bin/libtenon_cuda.so "$stage/bin/"
cp -r tests/golden/data "$stage/tests/golden/"
cp tests/gpu/run.sh tests/gpu/make_model.py tests/gpu/report.py "$stage/tests/gpu/"
{ git rev-parse HEAD; git status --porcelain | sed 's/^/changed: /'; } >"$stage/commit"
mkdir -p "$(dirname "$output")"
tar -C "$stage" -c . | xz -T2 -6 >"$output"
bytes=$(stat -c %s "$output")
echo "$output: $((bytes / 1000000)) MB"
[ "$bytes" -lt 60000000 ] || { echo "more than 60 MB" >&2; exit 1; }
