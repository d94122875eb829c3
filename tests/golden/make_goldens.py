#!/usr/bin/env python3
"""Makes the golden files: what transformers and PEFT compute for fixed models and adapters.

    python tests/golden/make_goldens.py tiny [MODEL ...]
    python tests/golden/make_goldens.py smollm2 --model smollm2

`tiny` writes models, adapters and goldens under data/<model>/; `smollm2` writes data/smollm2/ for
the model that deploy/quickstart/convert_model.py makes and the adapters of deploy/demo.
"""

import argparse
import random
import shutil
from pathlib import Path

import torch
import transformers
from golden_writer import REPOSITORY, STEPS, Goldens
from lora_adapters import (
    OTHER_TINY_ADAPTERS,
    SMOLLM2_ADAPTERS,
    TINY_LLAMA_ADAPTERS,
    Adapter,
    write_adapter,
)
from reference import VERSIONS, greedy_logits, load, write_tokenizer_cases
from seeds import seed_of
from texts import CHATS, SMOLLM2_PROMPTS, tokenizer_texts
from tiny_models import SPECIAL_TOKENS, TINY_MODELS, VOCAB_SIZE, write_model
from transformers import AutoTokenizer

DATA = REPOSITORY / "tests" / "golden" / "data"
DEMO_ADAPTERS = REPOSITORY / "deploy" / "demo" / "adapters"
# Length of each prompt, and for how many of the STEPS steps its logits are kept.
KEPT_STEPS = {1: 8, 7: STEPS, 40: STEPS}
TINY_STRENGTH = 0.6
SMOLLM2_STRENGTH = 0.5
NUM_TINY_TEXTS = 100
NUM_SMOLLM2_TEXTS = 200


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def write_adapters(
    model_dir: Path, name: str, adapters: dict[str, Adapter], strength: float, folder: Path
) -> dict[str, Path]:
    """Writes each adapter into folder/<adapter>; returns the folders by adapter name."""
    base = load(model_dir, None)
    base.name_or_path = name
    for adapter, recipe in adapters.items():
        write_adapter(base, adapter, recipe, strength, folder / adapter)
    return {adapter: folder / adapter for adapter in adapters}


def make_tiny(name: str) -> None:
    """All files of one tiny model."""
    folder = emptied(DATA / name)
    model_dir = folder / "model"
    write_model(name, model_dir)
    recipes = TINY_LLAMA_ADAPTERS if name == "tiny-llama" else OTHER_TINY_ADAPTERS
    adapters = write_adapters(model_dir, name, recipes, TINY_STRENGTH, folder / "adapters")

    goldens = Goldens(name, VERSIONS, adapters)
    rng = random.Random(seed_of(name))
    for length, kept in KEPT_STEPS.items():
        prompt = [rng.randrange(len(SPECIAL_TOKENS), VOCAB_SIZE) for _ in range(length)]
        for adapter in (None, *adapters):
            model = load(model_dir, adapters.get(adapter))
            logits = greedy_logits(model, prompt)
            goldens.add(f"{adapter or 'base'}/{length}", adapter, prompt, logits, kept)
    goldens.write(folder)
    write_tokenizer_cases(
        model_dir, tokenizer_texts(NUM_TINY_TEXTS), CHATS, folder / "tokenizer_cases.json"
    )


def make_smollm2(model_dir: Path) -> None:
    """All files of the real model.

    Logits are kept for the first step of three cases only: a row has 49152 entries.
    """
    folder = emptied(DATA / "smollm2")
    adapters = write_adapters(
        model_dir, "smollm2", SMOLLM2_ADAPTERS, SMOLLM2_STRENGTH, folder / "adapters"
    )
    adapters |= {path.name: path for path in sorted(DEMO_ADAPTERS.iterdir())}
    tokenizer = AutoTokenizer.from_pretrained(model_dir)

    goldens = Goldens("smollm2", VERSIONS, adapters)
    for adapter in (None, *adapters):
        model = load(model_dir, adapters.get(adapter))
        for title, text in SMOLLM2_PROMPTS.items():
            prompt = tokenizer(text)["input_ids"]
            keep = title == "article" and adapter in (None, "random-qv", "json-extract")
            logits = greedy_logits(model, prompt)
            goldens.add(f"{adapter or 'base'}/{title}", adapter, prompt, logits, int(keep))
    goldens.write(folder)
    write_tokenizer_cases(
        model_dir, tokenizer_texts(NUM_SMOLLM2_TEXTS), CHATS, folder / "tokenizer_cases.json"
    )


def main() -> None:
    """Parses the command line and makes one of the two sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    tiny = commands.add_parser("tiny", help="tiny random models")
    tiny.add_argument("models", nargs="*", default=list(TINY_MODELS), metavar="MODEL")
    smollm2 = commands.add_parser("smollm2", help="the real model")
    smollm2.add_argument("--model", type=Path, required=True, help="the converted folder")
    arguments = parser.parse_args()

    # One thread: the order of a sum, and so its last bits, must not depend on the machine's cores.
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if arguments.command == "smollm2":
        make_smollm2(arguments.model)
        return
    for name in arguments.models:
        make_tiny(name)


if __name__ == "__main__":
    main()
