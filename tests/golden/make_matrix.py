#!/usr/bin/env python3
"""Makes the models of the golden matrix and all of its cells that PEFT computes.

    python tests/golden/make_matrix.py models
    python tests/golden/make_matrix.py peft [ARCHITECTURE ...]
    python tests/golden/make_matrix.py bf16 [ARCHITECTURE ...]

`models` writes data/matrix/<architecture>/model; `peft` writes adapters and goldens beside them and
the cells of data/matrix/matrix.json, one line a cell; `bf16` adds what PEFT computes in bfloat16.
"""

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # PEFT would look for the base model there

import torch
import transformers
from golden_writer import STEPS, Goldens
from matrix_bf16 import write_bf16
from matrix_cases import add_cases, probe
from matrix_cells import MATRIX, Attempt, Cell, emptied, make_cell, write_cells
from matrix_models import MATRIX_MODELS, write_model
from matrix_peft_methods import Method, methods_of
from matrix_peft_weights import fill_random
from peft import PeftModel, get_peft_model
from reference import VERSIONS, greedy_logits, load

LIBRARY = "peft"
BASE_KEPT = 8


@torch.inference_mode()
def generated_logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Logits [STEPS, vocab] of the library's own greedy generation with a KV cache."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack([step[0] for step in output.logits])


def case_logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Logits [STEPS, vocab] of one case: the library's generation where virtual tokens precede."""
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return generated_logits(model, prompt)
    return greedy_logits(model, prompt)


class PeftAttempt:
    """The making of one cell; `model` is the loaded one once there is one."""

    def __init__(self, goldens: Goldens, name: str, method: Method, model_dir: Path) -> None:
        self.goldens, self.name, self.method, self.model_dir = goldens, name, method, model_dir
        self.model: PeftModel | None = None

    def save(self, folder: Path) -> torch.Tensor:
        """Makes and saves the adapter."""
        base = load(self.model_dir, None)
        base.name_or_path = self.goldens.model
        torch.manual_seed(0)
        model = get_peft_model(base, self.method.config)
        fill_random(model, f"{self.goldens.model}/{self.name}")
        model.eval()
        whole = "auto" if self.method.save_base_embeddings else False
        model.save_pretrained(folder, save_embedding_layers=whole)
        (folder / "README.md").unlink()  # PEFT's empty model card
        return probe(model, self.method.prompt_ids)

    def load(self, folder: Path) -> torch.Tensor:
        """Loads the adapter onto a fresh model."""
        self.model = load(self.model_dir, folder)
        return probe(self.model, self.method.prompt_ids)

    def add_cases(self) -> str:
        """Adds the cases of the loaded adapter."""
        ids = self.method.prompt_ids
        return add_cases(self.goldens, self.model, self.name, self.name, ids, case_logits)


def make_peft(architecture: str) -> None:
    """The PEFT half of the matrix for one architecture."""
    folder = emptied(MATRIX / architecture / LIBRARY)
    model_dir = folder.parent / "model"
    goldens = Goldens(architecture, VERSIONS, {})
    base = load(model_dir, None)
    note = add_cases(goldens, base, "base", None, [], case_logits, BASE_KEPT)
    cells = [Cell(architecture, LIBRARY, "base", "golden", note=note)]
    for name, method in methods_of(architecture, base.config.num_hidden_layers).items():
        attempt = PeftAttempt(goldens, name, method, model_dir)
        steps = Attempt(attempt.save, attempt.load, attempt.add_cases)
        plain = probe(base, method.prompt_ids)
        cells.append(make_cell(goldens, LIBRARY, name, folder, steps, plain, method.note))
        print(f"{architecture} {name}: {cells[-1].status} {cells[-1].reason} {cells[-1].note}")
    goldens.write(folder)
    write_cells(LIBRARY, cells)


def make_bf16(architecture: str) -> None:
    """What PEFT computes for the same cases in bfloat16."""
    folder = MATRIX / architecture / LIBRARY

    def model_of(case: dict) -> torch.nn.Module:
        adapter = case["adapter"] and folder / "adapters" / case["adapter"]
        return load(folder.parent / "model", adapter, torch.bfloat16)

    write_bf16(folder, model_of)


def main() -> None:
    """Parses the command line and makes what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["models", "peft", "bf16"])
    parser.add_argument("architectures", nargs="*", default=list(MATRIX_MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for architecture in arguments.architectures:
        if arguments.command == "models":
            write_model(architecture, emptied(MATRIX / architecture / "model"))
        elif arguments.command == "bf16":
            make_bf16(architecture)
        else:
            make_peft(architecture)


if __name__ == "__main__":
    main()
