#!/usr/bin/env bash
# tests/gpu/run.sh says plainly when there is no GPU.
set -uo pipefail
folder=$(cd "$(dirname "$0")" && pwd)
gpus=$(nvidia-smi -L 2>/dev/null || true)
if [[ $gpus == *GPU* ]]; then
  echo "there is a GPU: nothing to show"
  exit 0
fi
output=$("$folder/run.sh" 2>&1)
status=$?
[ $status = 3 ] || { echo "exit status $status, want 3: $output" >&2; exit 1; }
[[ $output == *"no GPU"* ]] || { echo "it said: $output" >&2; exit 1; }
