#!/usr/bin/env bash
# Makes everything under tests/golden/data again. Needs Python 3.11, 12 GB of disk and 30 minutes.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

# One thread and one order of Python's sets, so that two runs write the same bytes.
export OMP_NUM_THREADS=1 PYTHONHASHSEED=0

"$python" "$root/tests/golden/check_model.py" --gguf "$gguf" --model "$model"
"$python" "$root/tests/golden/make_goldens.py" tiny
"$python" "$root/tests/golden/make_goldens.py" smollm2 --model "$model"
"$root/tests/golden/make_matrix.sh"
