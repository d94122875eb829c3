#!/usr/bin/env python3
"""Makes all cells of the golden matrix that AdapterHub's `adapters` computes.

    python tests/golden/matrix_adapterhub.py [--bf16] [ARCHITECTURE ...]

Needs the models and base goldens of make_matrix.py, and the environment of
adapterhub-requirements.txt. First checks that this version of transformers computes the base
goldens too. Prints one line a cell. With --bf16 adds what the library computes in bfloat16 for the
cases that are there.
"""

import argparse
import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import adapters
import torch
import transformers
from golden_writer import Goldens
from matrix_adapterhub_methods import Method, fill_random, methods_of
from matrix_bf16 import write_bf16
from matrix_cases import add_cases, difference, probe, uncached_logits, whole_pass_logits
from matrix_cells import MATRIX, Attempt, emptied, make_cell, write_cells
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedModel

LIBRARY = "adapterhub"
VERSIONS = {
    "transformers": transformers.__version__,
    "adapters": adapters.__version__,
    "torch": torch.__version__,
}
BASE_TOLERANCE = 2e-5


def load_base(
    model_dir: Path, with_adapters: bool = True, dtype: torch.dtype = torch.float32
) -> PreTrainedModel:
    """The model with eager attention, able to take adapters."""
    model = AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation="eager"
    )
    if with_adapters:
        adapters.init(model)
    return model.eval()


def check_base(model: PreTrainedModel, folder: Path) -> float:
    """The largest difference of the model from the base goldens of transformers 5."""
    golden = json.loads((folder / "golden.json").read_text())
    logits = load_file(folder / "golden.safetensors")
    worst = 0.0
    for case in golden["cases"]:
        if case["adapter"] is None:
            rows = logits[case["logits"]]
            ids = case["prompt"] + case["tokens"][: len(rows) - 1]
            worst = max(worst, difference(whole_pass_logits(model, ids, len(rows)), rows))
    return worst


def convert_pickle(folder: Path) -> None:
    """Replaces pytorch_adapter.bin by an adapter.safetensors with the same keys and values."""
    pickle = folder / "pytorch_adapter.bin"
    tensors = torch.load(pickle, weights_only=True)
    copies = {key: value.clone() for key, value in tensors.items()}
    save_file(copies, folder / "adapter.safetensors")
    pickle.unlink()


class AdapterHubAttempt:
    """The making of one cell; `model` is the loaded one once there is one."""

    def __init__(self, goldens: Goldens, name: str, method: Method, model_dir: Path) -> None:
        self.goldens, self.name, self.method, self.model_dir = goldens, name, method, model_dir
        self.model: PreTrainedModel | None = None

    def save(self, folder: Path) -> torch.Tensor:
        """Makes and saves the adapter, under its method's name."""
        model = load_base(self.model_dir)
        model.config.name_or_path = self.goldens.model  # not a path of this machine
        torch.manual_seed(0)
        model.add_adapter(self.name, config=self.method.config, set_active=True)
        folder.mkdir(parents=True)  # the library makes one level only
        fill_random(model, self.name, f"{self.goldens.model}/{self.name}")
        model.eval()
        convert = self.method.converted
        model.save_adapter(
            str(folder), self.name, with_head=self.method.with_head, use_safetensors=not convert
        )
        if convert:
            convert_pickle(folder)
        return probe(model, [])

    def load(self, folder: Path) -> torch.Tensor:
        """Loads the adapter onto a fresh model."""
        self.model = load_base(self.model_dir)
        self.model.load_adapter(str(folder), use_safetensors=True, set_active=True)
        self.model.eval()
        return probe(self.model, [])

    def add_cases(self) -> str:
        """Adds the cases of the loaded adapter, without a KV cache."""
        return add_cases(self.goldens, self.model, self.name, self.name, [], uncached_logits)


def make_adapterhub(architecture: str) -> None:
    """The AdapterHub half of the matrix for one architecture."""
    folder = emptied(MATRIX / architecture / LIBRARY)
    model_dir = folder.parent / "model"
    for with_adapters in (False, True):
        base = load_base(model_dir, with_adapters)
        worst = check_base(base, folder.parent / "peft")
        assert worst < BASE_TOLERANCE, f"{architecture}: base differs by {worst}"
    goldens = Goldens(architecture, VERSIONS, {})
    plain = probe(base, [])
    cells = []
    for name, method in methods_of(architecture).items():
        attempt = AdapterHubAttempt(goldens, name, method, model_dir)
        steps = Attempt(attempt.save, attempt.load, attempt.add_cases)
        cells.append(make_cell(goldens, LIBRARY, name, folder, steps, plain, method.note))
        print(f"{architecture} {name}: {cells[-1].status} {cells[-1].reason} {cells[-1].note}")
    goldens.write(folder)
    write_cells(LIBRARY, cells)


def make_bf16(architecture: str) -> None:
    """What the library computes for the same cases in bfloat16."""
    folder = MATRIX / architecture / LIBRARY

    def model_of(case: dict) -> PreTrainedModel:
        model = load_base(folder.parent / "model", dtype=torch.bfloat16)
        adapter = str(folder / "adapters" / case["adapter"])
        model.load_adapter(adapter, use_safetensors=True, set_active=True)
        return model.eval()

    write_bf16(folder, model_of)


def main() -> None:
    """Parses the command line and makes what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bf16", action="store_true", help="add the cases in bfloat16")
    parser.add_argument("architectures", nargs="*")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    everything = sorted(path.parent.name for path in MATRIX.glob("*/model"))
    for architecture in arguments.architectures or everything:
        if arguments.bf16:
            make_bf16(architecture)
        else:
            make_adapterhub(architecture)


if __name__ == "__main__":
    main()
