#!/usr/bin/env bash
# Makes the questions, the adapters and results.json of this folder again, in the two environments of
# tests/golden. Takes three quarters of an hour on two CPU cores. PEFT keeps target_modules in a set:
# their order in adapter_config.json may change, the weights do not. Afterwards run
# tests/golden/make.sh, whose SmolLM2 cases use the LoRA adapters.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../../tests/golden/prepare.sh"
make_environment venv-adapterhub adapterhub-requirements.txt
adapterhub_python=$cache/venv-adapterhub/bin/python

"$python" "$root/deploy/demo/make_data.py"
for command in train evaluate; do
  "$python" "$root/deploy/demo/train.py" --model "$model" "$command"
  "$adapterhub_python" "$root/deploy/demo/train_adapterhub.py" --model "$model" "$command"
done
