#!/usr/bin/env bash
# Makes everything under tests/golden/data/matrix again. Needs Python 3.11, 11 GB and 20 minutes.

set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
source "$root/tests/golden/environments.sh"
export OMP_NUM_THREADS=1 PYTHONHASHSEED=0

make_environment venv requirements.txt
make_environment venv-adapterhub adapterhub-requirements.txt
python=$cache/venv/bin/python
adapterhub_python=$cache/venv-adapterhub/bin/python

rm -rf "$root/tests/golden/data/matrix"
"$python" -W ignore "$root/tests/golden/make_matrix.py" models
"$python" -W ignore "$root/tests/golden/make_matrix.py" peft
"$python" -W ignore "$root/tests/golden/make_matrix.py" bf16
"$python" -W ignore "$root/tests/golden/matrix_compositions.py"
"$python" -W ignore "$root/tests/golden/matrix_compositions.py" --bf16
"$adapterhub_python" -W ignore "$root/tests/golden/matrix_adapterhub.py"
"$adapterhub_python" -W ignore "$root/tests/golden/matrix_adapterhub.py" --bf16
