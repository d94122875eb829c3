#!/usr/bin/env python3
"""Trains the demo's PEFT adapters on the CPU and measures what PEFT itself answers with them.

    python deploy/demo/train.py --model smollm2 train [TASK ...]
    python deploy/demo/train.py --model smollm2 evaluate [TASK ...]

`train` writes adapters/<task>/ as PEFT saves it; `evaluate` reads these folders back and writes
their part of results.json. The adapters differ in method, rank, targets, scaling and dtype on
purpose, so that a batch that mixes them is a heterogeneous one.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import peft
import torch
from peft import (
    LoraConfig,
    PeftConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
    initialize_kv_prefix_from_text,
)
from training import (
    ADAPTERS_DIR,
    BASE_MODEL_NAME,
    SEED,
    HiddenOf,
    evaluate_task,
    fit,
    load_base,
    write_results,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase

NEWS_START = "Desk of the headline: sports, business, science, politics, weather, culture."
HOME_START = (
    "Answer with room, device, and on or off. Wish: Turn off the lamp in the kitchen.\n"
    "Command: kitchen lamp off\n"
)


def virtual_token_start(text: str) -> Callable[[PeftModel, PreTrainedTokenizerBase], None]:
    """Starts prefix tuning from the keys and values of a text instead of from noise."""

    def start(model: PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
        initialize_kv_prefix_from_text(model, tokenizer, text=text, use_chat_template=False)

    return start


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained and saved."""

    config: PeftConfig
    steps: int
    learning_rate: float
    batch_size: int = 16
    saved_dtype: torch.dtype = torch.float32
    start: Callable[[PeftModel, PreTrainedTokenizerBase], None] = lambda model, tokenizer: None


RECIPES = {
    "ticket-router": Recipe(
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
        steps=120,
        learning_rate=2e-3,
    ),
    "json-extract": Recipe(
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"),
        steps=120,
        learning_rate=2e-3,
        saved_dtype=torch.bfloat16,
    ),
    "date-normalize": Recipe(
        LoraConfig(
            r=8,
            lora_alpha=8,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj"],
            use_rslora=True,
        ),
        steps=200,
        learning_rate=2e-3,
        saved_dtype=torch.bfloat16,
    ),
    "pirate-tone": Recipe(
        LoraConfig(r=16, lora_alpha=16, target_modules=["v_proj", "down_proj"]),
        steps=120,
        learning_rate=1e-3,
        saved_dtype=torch.float16,
    ),
    "news-desk": Recipe(
        PromptTuningConfig(
            num_virtual_tokens=18,
            prompt_tuning_init="TEXT",
            prompt_tuning_init_text=NEWS_START,
            tokenizer_name_or_path=BASE_MODEL_NAME,
        ),
        steps=100,
        learning_rate=2e-2,
        batch_size=6,
    ),
    "home-command": Recipe(
        PrefixTuningConfig(num_virtual_tokens=29),
        steps=40,
        learning_rate=1e-2,
        batch_size=6,
        saved_dtype=torch.bfloat16,
        start=virtual_token_start(HOME_START),
    ),
}


def hidden_states(model: PeftModel) -> HiddenOf:
    """Last hidden states of the real tokens; virtual tokens go in front as PEFT makes them."""
    base = model.get_base_model()

    def plain(ids: torch.Tensor) -> torch.Tensor:
        return base.model(input_ids=ids, use_cache=False).last_hidden_state

    def behind_prompt(ids: torch.Tensor) -> torch.Tensor:
        prompts = model.get_prompt(batch_size=len(ids))
        embedded = torch.cat([prompts, base.get_input_embeddings()(ids)], dim=1)
        hidden = base.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
        return hidden[:, prompts.shape[1] :]

    def behind_prefix(ids: torch.Tensor) -> torch.Tensor:
        cache = model.get_prompt(batch_size=len(ids))
        return base.model(input_ids=ids, past_key_values=cache).last_hidden_state

    config = model.active_peft_config
    if not config.is_prompt_learning:
        return plain
    return behind_prefix if isinstance(config, PrefixTuningConfig) else behind_prompt


def train(model_dir: Path, task: str) -> None:
    """Trains one adapter and saves it."""
    recipe = RECIPES[task]
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    recipe.config.task_type = "CAUSAL_LM"
    if isinstance(recipe.config, PromptTuningConfig):
        recipe.config.tokenizer_name_or_path = str(model_dir)
    model = get_peft_model(load_base(model_dir), recipe.config)
    recipe.start(model, tokenizer)
    trained = [p for p in model.parameters() if p.requires_grad]
    head = model.get_base_model().lm_head
    fit(
        task,
        tokenizer,
        head,
        hidden_states(model),
        trained,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
    )
    with torch.no_grad():
        for parameter in trained:
            parameter.data = parameter.data.to(recipe.saved_dtype)
    if isinstance(recipe.config, PromptTuningConfig):
        recipe.config.tokenizer_name_or_path = BASE_MODEL_NAME  # not a path of this machine
    folder = ADAPTERS_DIR / task
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()  # PEFT's empty model card


def main() -> None:
    """Parses the command line and runs one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    parser.add_argument("command", choices=["train", "evaluate"])
    parser.add_argument("tasks", nargs="*", default=list(RECIPES), metavar="TASK")
    arguments = parser.parse_args()
    if arguments.command == "train":
        for task in arguments.tasks:
            train(arguments.model, task)
        return
    results = {}
    for task in arguments.tasks:
        folder = ADAPTERS_DIR / task
        results[task] = evaluate_task(
            task, arguments.model, lambda base, folder=folder: PeftModel.from_pretrained(base, folder)
        )
    write_results(f"peft {peft.__version__}", results)


if __name__ == "__main__":
    main()
