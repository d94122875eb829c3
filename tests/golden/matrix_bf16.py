"""The first-step logits of the golden matrix with the reference itself in bfloat16.

How far the reference's own bfloat16 is from its float32 is the measure for Tenon's. Base and
adapter have bfloat16 parameters, as Tenon holds them; buffers (rotary frequencies) stay float32.
"""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file

# The model of a case of golden.json, in whatever dtype the library loads it.
ModelOf = Callable[[dict], torch.nn.Module]


def in_bf16(model: torch.nn.Module) -> torch.nn.Module:
    """The model with all parameters, and VeRA's frozen matrices, in bfloat16."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    for name, buffer in model.named_buffers():
        if "vera_" in name:
            buffer.data = buffer.data.to(torch.bfloat16)
    return model


@torch.inference_mode()
def write_bf16(folder: Path, model_of: ModelOf) -> None:
    """Writes golden-bf16.safetensors beside golden.json: bfloat16 [1, vocab] under a case's name."""
    cases = json.loads((folder / "golden.json").read_text())["cases"]
    logits, made_for = {}, None
    for case in cases:
        made_of = (case["adapter"], json.dumps(case.get("selection")))
        if made_of != made_for:
            model, made_for = in_bf16(model_of(case)), made_of
        ids = torch.tensor([case["prompt"]])
        row = model(input_ids=ids, use_cache=False).logits[0, -1:]
        assert torch.isfinite(row).all(), f"{folder}: {case['name']} is not finite"
        logits[case["name"]] = row.to(torch.bfloat16).contiguous()
    save_file(logits, folder / "golden-bf16.safetensors")
    print(f"{folder.parent.name} {folder.name}: {len(logits)} cases in bfloat16")
