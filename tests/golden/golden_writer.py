"""The files that keep what a reference library computed; needs no library but torch."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file

STEPS = 32
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Goldens:
    """The cases of one model.

    `versions` names the libraries; `adapters` maps an adapter's name to its folder.
    """

    model: str
    versions: dict[str, str]
    adapters: dict[str, Path]
    cases: list[dict] = field(default_factory=list)
    logits: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(
        self,
        name: str,
        adapter: str | None,
        prompt: list[int],
        logits: torch.Tensor,
        kept: int,
        **more,
    ) -> None:
        """Adds one case from the logits [steps, vocab] of its greedy steps; stores `kept` steps.

        `more` are further entries of the case.
        """
        best = logits.topk(2, dim=-1)
        case = {
            "name": name,
            "adapter": adapter,
            **more,
            "prompt": prompt,
            "tokens": best.indices[:, 0].tolist(),
            "margins": [round(m, 6) for m in (best.values[:, 0] - best.values[:, 1]).tolist()],
        }
        if kept:
            case["logits"] = name
            self.logits[name] = logits[:kept].contiguous()
        self.cases.append(case)

    def write(self, folder: Path) -> None:
        """Writes golden.json, one case a line, and golden.safetensors."""
        header = {
            "model": self.model,
            **self.versions,
            "dtype": "float32",
            "adapters": {
                name: str(path.relative_to(REPOSITORY)) for name, path in self.adapters.items()
            },
        }
        lines = [f'"{key}": {json.dumps(value)}' for key, value in header.items()]
        cases = ",\n".join(json.dumps(case) for case in self.cases)
        body = ",\n".join([*lines, f'"cases": [\n{cases}\n]'])
        (folder / "golden.json").write_text(f"{{\n{body}\n}}\n")
        save_file(self.logits, folder / "golden.safetensors")
