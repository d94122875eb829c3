#!/usr/bin/env bash
# Everything that takes a GPU, in one unattended run of under 9 minutes: the golden and kernel tests on the device,
# compute-sanitizer where it is installed, and the engine's benchmark on a model of Llama-7B's shape. Leaves report.json,
# report.md and a log of each part, whatever fails on the way.
#
#   tests/gpu/run.sh [--bundle build/gpu-bundle.tar.xz] [--out FOLDER] [--python python3]
#
# Needs: an NVIDIA GPU, a Python with torch 2.11.0 (CUDA 13.0) and safetensors, and the bundle of make_bundle.sh.
# Exit status: 0 all passed, 1 something failed, 2 wrong arguments or no bundle, 3 no GPU.
set -uo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
bundle=$folder/../../build/gpu-bundle.tar.xz
out=gpu-report
python=python3
while [ $# -gt 0 ]; do
  case $1 in
    --bundle) bundle=$2 ;;
    --out) out=$2 ;;
    --python) python=$2 ;;
    *) echo "unknown argument $1" >&2; exit 2 ;;
  esac
  shift 2
done

gpus=$(nvidia-smi -L 2>/dev/null || true)
if [[ $gpus != *GPU* ]]; then
  echo "no GPU: nvidia-smi lists none; nothing was run" >&2
  exit 3
fi
[ -f "$bundle" ] || { echo "no bundle $bundle: make it with tests/gpu/make_bundle.sh" >&2; exit 2; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tar -C "$work" -xJf "$bundle"
torch=$("$python" -c 'import os, torch; print(os.path.dirname(torch.__file__))') || {
  echo "no torch in $python" >&2
  exit 2
}
# libtorch_cuda finds the nvidia wheels beside torch by itself; libtorch_cpu's two are named here.
export LD_LIBRARY_PATH=$torch/lib:$torch/../nvidia/cu13/lib:$work/lib
export TENON_CUDA_LIBRARY=$work/bin/libtenon_cuda.so
export TENON_SOURCE_DIR=$work
export TENON_TEST_DEVICE=cuda
deadline=$(($(date +%s) + 510))

# part <name> <seconds> <command...>: a log, a line of parts.tsv (name, status, seconds), never the end of the run.
part() {
  local name=$1 limit=$2 begin left status
  shift 2
  begin=$(date +%s)
  left=$((deadline - begin))
  if [ "$left" -le 5 ]; then
    printf '%s\tskipped\t0\n' "$name" >>"$out/parts.tsv"
    return
  fi
  timeout $((limit < left ? limit : left)) "$@" >"$out/$name.log" 2>&1
  status=$?
  printf '%s\t%s\t%s\n' "$name" "$status" "$(($(date +%s) - begin))" >>"$out/parts.tsv"
  echo "$name: status $status"
}
rm -f "$out"/*.log "$out/parts.tsv" "$out"/*.xml

gtest() { echo "--gtest_output=xml:$out/$1.xml"; }
part kernels_deltas 60 "$work/bin/delta_plan_test" "$(gtest delta_plan_test)"
part kernels_bottlenecks 60 "$work/bin/bottleneck_plan_test" "$(gtest bottleneck_plan_test)"
part kernels_tables 60 "$work/bin/device_tables_test" "$(gtest device_tables_test)"
part kernels_model 60 "$work/bin/cuda_ops_test" "$(gtest cuda_ops_test)"
part kernels_sampling 60 "$work/bin/sampling_cuda_test" "$(gtest sampling_cuda_test)"
part graphs 60 "$work/bin/device_graph_test" "$(gtest device_graph_test)"
part decode_graphs 90 "$work/bin/decode_graphs_test" "$(gtest decode_graphs_test)"
part golden 90 "$work/bin/golden_test" "$(gtest golden_test)"
part methods_golden 150 "$work/bin/methods_golden_test" "$(gtest methods_golden_test)"
part merge_golden 90 "$work/bin/merge_golden_test" "$(gtest merge_golden_test)"
TENON_TEST_KERNELS=reference part golden_reference 90 "$work/bin/golden_test"
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck; do
    part "sanitizer_$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$work/bin/cuda_ops_test"
    part "sanitizer_deltas_$tool" 60 compute-sanitizer --tool "$tool" --error-exitcode 9 "$work/bin/delta_plan_test"
  done
fi
part model 60 "$python" "$folder/make_model.py" "$work/model"
part limits 60 "$python" "$folder/make_model.py" --limits
benchmark() {
  local name=$1 adapters=$2 concurrency=$3
  shift 3
  part "$name" 90 "$work/bin/engine_benchmark" --device=cuda --model="$work/model" --adapters="$adapters" \
    --concurrency="$concurrency" --requests="$concurrency" --prompt_tokens=128 --output_tokens=64 --kv_mib=8192 \
    --max_batch_tokens=4096 --warmup="$concurrency" "$@"
}
benchmark decode_1 0 1
benchmark decode_32 0 32
benchmark decode_32_without_graphs 0 32 --cuda_graphs=false
benchmark decode_32_one_adapter 1 32
benchmark decode_32_adapters_32 32 32
"$python" "$folder/report.py" "$out" "$work/commit"
