#!/usr/bin/env bash
# A program for the CPU is linked with nothing of CUDA: what a GPU takes is opened when --device asks for it.
#
#   tests/gpu/cuda_free_test.sh build/release/bin/tenon-server
set -euo pipefail
needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
echo "$needed" | grep -q '^libtorch_cpu\.so$' || { echo "$1 is not linked with LibTorch" >&2; exit 1; }
if echo "$needed" | grep -E 'cuda|cudart|cublas|cudnn|nccl|nvrtc|^libtorch\.so'; then
  echo "$1 is linked with the libraries above" >&2
  exit 1
fi

# Where there is no driver, asking for a GPU says so, and the model is not even looked for.
libraries=$(ldconfig -p)
if [[ $libraries != *libcuda.so.1* ]]; then
  store=$(mktemp -d)
  trap 'rm -rf "$store"' EXIT
  if "$1" --model="$store/none" --store="$store" --device=cuda >"$store/log" 2>&1; then
    echo "--device=cuda starts without a driver" >&2
    exit 1
  fi
  grep -q 'no NVIDIA driver: libcuda\.so\.1' "$store/log" || { cat "$store/log" >&2; exit 1; }
fi
