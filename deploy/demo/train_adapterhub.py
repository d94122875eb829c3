#!/usr/bin/env python3
"""Trains the demo's bottleneck adapter with AdapterHub's `adapters` on the CPU and measures it.

    python deploy/demo/train_adapterhub.py --model smollm2 train
    python deploy/demo/train_adapterhub.py --model smollm2 evaluate

Needs the environment of tests/golden/adapterhub-requirements.txt. Writes adapters/<task>/ as the
library's save_adapter does with safetensors, and that adapter's part of results.json. The library
loses the KV cache of a Llama with this version of transformers (see tests/golden/README.md), so
it answers without one.
"""

import argparse
from pathlib import Path

import adapters
import torch
from training import (
    ADAPTERS_DIR,
    BASE_MODEL_NAME,
    SEED,
    evaluate_task,
    fit,
    load_base,
    write_results,
)
from transformers import AutoTokenizer, PreTrainedModel

TASK = "sql-writer"
NAME = TASK.replace("-", "_")
STEPS = 40
BATCH_SIZE = 4
LEARNING_RATE = 2e-3
# Pfeiffer's placement: one bottleneck of 24 behind each feed-forward block.
CONFIG = adapters.SeqBnConfig(reduction_factor=24, non_linearity="gelu")


def train(model_dir: Path) -> None:
    """Trains the adapter and saves it in bf16."""
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    model = load_base(model_dir)
    adapters.init(model)
    model.config.name_or_path = BASE_MODEL_NAME  # not a path of this machine
    model.add_adapter(NAME, config=CONFIG)
    model.train_adapter(NAME)
    model.eval()  # no dropout anywhere
    trained = [p for p in model.parameters() if p.requires_grad]

    def hidden_of(ids: torch.Tensor) -> torch.Tensor:
        return model.model(input_ids=ids, use_cache=False).last_hidden_state

    fit(
        TASK,
        tokenizer,
        model.lm_head,
        hidden_of,
        trained,
        steps=STEPS,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE,
    )
    with torch.no_grad():
        for parameter in trained:
            parameter.data = parameter.data.to(torch.bfloat16)
    folder = ADAPTERS_DIR / TASK
    folder.mkdir(parents=True, exist_ok=True)
    model.save_adapter(str(folder), NAME, with_head=False, use_safetensors=True)


def with_adapter(base: PreTrainedModel) -> PreTrainedModel:
    """The model with the saved adapter active."""
    adapters.init(base)
    base.load_adapter(str(ADAPTERS_DIR / TASK), use_safetensors=True, set_active=True)
    return base


def main() -> None:
    """Parses the command line and runs one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("command", choices=["train", "evaluate"])
    arguments = parser.parse_args()
    if arguments.command == "train":
        train(arguments.model)
        return
    result = evaluate_task(TASK, arguments.model, with_adapter, use_cache=False)
    write_results(f"adapters {adapters.__version__}", {TASK: result})


if __name__ == "__main__":
    main()
