#!/usr/bin/env bash
# Makes the questions, the adapters and results.json of this folder again. Takes half an hour on two
# CPU cores. PEFT keeps target_modules in a set: their order in adapter_config.json may change, the
# weights do not. Afterwards run tests/golden/make.sh, whose SmolLM2 cases use these adapters.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../tests/golden/prepare.sh"

"$python" "$root/deploy/demo/make_data.py"
"$python" "$root/deploy/demo/train.py" --model "$model" train
"$python" "$root/deploy/demo/train.py" --model "$model" evaluate
