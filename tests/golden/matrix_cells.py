"""The cells of the golden matrix: which exist, and why the others do not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from golden_writer import REPOSITORY, Goldens
from matrix_cases import MIN_EFFECT, difference

MATRIX = REPOSITORY / "tests" / "golden" / "data" / "matrix"
# What a saved adapter computes when it is loaded may differ by as much from what was saved.
RELOAD_TOLERANCE = 1e-5
MAX_REASON = 200


@dataclass
class Cell:
    """One method on one architecture.

    status is `golden` or `unsupported`; reason is the reference's own error, or empty; note tells
    what a reader of the adapter or of the goldens must know.
    """

    architecture: str
    library: str
    method: str
    status: str
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Attempt:
    """The three steps by which a library makes one adapter and its goldens.

    save writes the adapter into a folder and load reads it again; both return the logits of the
    probe text. add_cases adds the cases of the adapter that load read and returns a note.
    """

    save: Callable[[Path], torch.Tensor]
    load: Callable[[Path], torch.Tensor]
    add_cases: Callable[[], str]


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def error_text(error: Exception) -> str:
    """Type and text of a library's error, on one line and not longer than MAX_REASON."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]} ..."


def make_cell(
    goldens: Goldens,
    library: str,
    name: str,
    folder: Path,
    attempt: Attempt,
    base: torch.Tensor,
    note: str = "",
) -> Cell:
    """One adapter below folder/adapters with its goldens, or the reason why there is none.

    `base` are the logits of the probe text without an adapter.
    """
    adapter_dir = folder / "adapters" / name
    num_cases = len(goldens.cases)
    notes = [note]
    try:
        saved = attempt.save(adapter_dir)
        loaded = attempt.load(adapter_dir)
        notes.append(attempt.add_cases())
    except Exception as error:  # whatever the libraries throw is the cell's content
        for case in goldens.cases[num_cases:]:
            goldens.logits.pop(case["logits"])
        del goldens.cases[num_cases:]
        shutil.rmtree(adapter_dir, ignore_errors=True)
        return Cell(goldens.model, library, name, "unsupported", error_text(error), note)
    if (lost := difference(saved, loaded)) > RELOAD_TOLERANCE:
        notes.append(f"loaded, it differs from what was trained by up to {lost:.2g}")
    effect = difference(loaded, base)
    assert effect > MIN_EFFECT, f"{goldens.model}/{name} changes logits by {effect} only"
    goldens.adapters[name] = adapter_dir
    text = "; ".join(part for part in notes if part)
    return Cell(goldens.model, library, name, "golden", note=text)


def write_cells(library: str, cells: list[Cell]) -> None:
    """Replaces the cells of one library and of the architectures among `cells` in matrix.json."""
    path = MATRIX / "matrix.json"
    replaced = {(library, cell.architecture) for cell in cells}
    kept = []
    if path.exists():
        kept = [
            Cell(**entry)
            for entry in json.loads(path.read_text())["cells"]
            if (entry["library"], entry["architecture"]) not in replaced
        ]
    merged = sorted(kept + cells, key=lambda cell: (cell.library, cell.architecture))
    lines = ",\n".join(json.dumps(asdict(cell)) for cell in merged)
    path.write_text(f'{{\n"cells": [\n{lines}\n]\n}}\n')
