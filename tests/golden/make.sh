#!/usr/bin/env bash
# Makes everything under tests/golden/data again. Needs Python 3.11, 6 GB of disk and 10 minutes.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/prepare.sh"

"$python" "$root/tests/golden/check_model.py" --gguf "$gguf" --model "$model"
"$python" "$root/tests/golden/make_goldens.py" tiny
"$python" "$root/tests/golden/make_goldens.py" smollm2 --model "$model"
