"""The cells of the golden matrix: which exist, and why the others do not."""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from golden_writer import REPOSITORY

MATRIX = REPOSITORY / "tests" / "golden" / "data" / "matrix"


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


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def error_text(error: Exception) -> str:
    """Type and text of a library's error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


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
