#!/usr/bin/env python3
"""Makes goldens of several PEFT adapters at once, each with a weight, on the Llama of the matrix.

    python tests/golden/matrix_compositions.py [--bf16]

Needs the adapters of make_matrix.py. Writes data/matrix/llama/composition, where a case has, for
its adapter, a list `selection` of adapters with weights, in the order in which PEFT applies them.
With --bf16 adds what PEFT computes in bfloat16 for the cases that are there.
"""

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from golden_writer import Goldens
from matrix_bf16 import write_bf16
from matrix_cases import MIN_EFFECT, add_cases, difference, probe
from matrix_cells import MATRIX, Cell, emptied, error_text, write_cells
from peft import PeftConfig, PeftMixedModel, PeftModel
from reference import VERSIONS, greedy_logits, load

LIBRARY = "peft-composition"
ARCHITECTURE = "llama"
Selection = list[tuple[str, float]]

COMPOSITIONS: dict[str, Selection] = {
    "one-scaled": [("lora", 0.4)],
    "one-negative": [("lora-rslora", -0.7)],
    "two": [("lora", 1.0), ("lora-rslora", 1.0)],
    "two-weighted": [("lora", 0.5), ("lora-rslora", -1.25)],
    "three-weighted": [("lora", 0.75), ("lora-all-linear", 1.5), ("lora-patterns", -0.5)],
    "with-embedding": [("lora", 0.8), ("lora-embedding-and-head", 0.6)],
    "with-lora-bias": [("lora", 0.8), ("lora-lora-bias", 0.6)],
    "dora-first": [("lora-dora", 1.0), ("lora", 1.0)],
    "dora-last": [("lora", 1.0), ("lora-dora", 1.0)],
    "dora-scaled": [("lora-dora", 0.5)],
    "dora-twice": [("lora-dora", 1.0), ("lora-dora-rslora", 1.0)],
    "loha-scaled": [("loha", 0.5)],
    "loha-twice": [("loha", 1.0), ("loha-patterns", 0.5)],
    "lokr-twice": [("lokr-full", 0.6), ("lokr-low-rank", 1.0)],
    "ia3-twice": [("ia3", 1.0), ("ia3-feedforward-attention", 1.0)],
    "ia3-scaled": [("ia3", 0.5)],
    "vera-scaled": [("vera", 0.5)],
    "lora-loha-lokr": [("lora", 0.7), ("loha", 1.0), ("lokr-low-rank", 0.5)],
    "lora-ia3": [("lora", 1.0), ("ia3", 1.0)],
    "lora-prefix": [("lora", 1.0), ("prefix-tuning", 1.0)],
}


def load_together(
    model_dir: Path,
    adapters_dir: Path,
    selection: Selection,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """The model with all adapters of a selection active; of several types by PeftMixedModel."""
    folders = [adapters_dir / name for name, _ in selection]
    types = {PeftConfig.from_pretrained(folder).peft_type for folder in folders}
    model_class = PeftModel if len(types) == 1 else PeftMixedModel
    names = [name.replace("-", "_") for name, _ in selection]
    model = model_class.from_pretrained(
        load(model_dir, None, dtype), folders[0], adapter_name=names[0]
    )
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, adapter_name=name)
    tuner = model if model_class is PeftMixedModel else model.base_model
    if len(names) > 1:
        tuner.set_adapter(names)
    for name, (_, weight) in zip(names, selection, strict=True):
        if weight != 1.0:
            scale(model, name, weight)
    return model.eval()


def scale(model: torch.nn.Module, adapter: str, weight: float) -> None:
    """Multiplies what one adapter adds, by the library's own set_scale."""
    layers = [layer for layer in model.modules() if hasattr(layer, "set_scale")]
    if not layers:
        raise ValueError(f"no layer of {type(model).__name__} has set_scale")
    for layer in layers:
        layer.set_scale(adapter, weight)


def make_cell(goldens: Goldens, name: str, selection: Selection, folder: Path) -> Cell:
    """The cases of one composition, or the reason why there are none."""
    num_cases = len(goldens.cases)
    try:
        model = load_together(folder / "model", folder / "peft" / "adapters", selection)
        listed = [{"adapter": adapter, "weight": weight} for adapter, weight in selection]
        note = add_cases(goldens, model, name, None, [], greedy_logits, selection=listed)
        effect = difference(probe(model, []), probe(load(folder / "model", None), []))
        assert effect > MIN_EFFECT, f"{name} changes logits by {effect} only"
    except (ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        assert len(goldens.cases) == num_cases
        return Cell(ARCHITECTURE, LIBRARY, name, "unsupported", error_text(error))
    return Cell(ARCHITECTURE, LIBRARY, name, "golden", note=note)


def make_bf16(folder: Path) -> None:
    """What PEFT computes for the same compositions in bfloat16."""

    def model_of(case: dict) -> torch.nn.Module:
        selection = [(part["adapter"], part["weight"]) for part in case["selection"]]
        adapters_dir = folder / "peft" / "adapters"
        return load_together(folder / "model", adapters_dir, selection, torch.bfloat16)

    write_bf16(folder / "composition", model_of)


def make_all(folder: Path) -> None:
    """The goldens of all compositions."""
    names = {name for selection in COMPOSITIONS.values() for name, _ in selection}
    used = {name: folder / "peft" / "adapters" / name for name in sorted(names)}
    goldens = Goldens(ARCHITECTURE, VERSIONS, used)
    cells = []
    for name, selection in COMPOSITIONS.items():
        cells.append(make_cell(goldens, name, selection, folder))
        print(f"composition {name}: {cells[-1].status} {cells[-1].reason} {cells[-1].note}")
    goldens.write(emptied(folder / "composition"))
    write_cells(LIBRARY, cells)


def main() -> None:
    """Parses the command line and makes what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bf16", action="store_true", help="add the cases in bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if arguments.bf16:
        make_bf16(MATRIX / ARCHITECTURE)
    else:
        make_all(MATRIX / ARCHITECTURE)


if __name__ == "__main__":
    main()
