"""Random LoRA adapters, saved by PEFT, one for each option of its configuration."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from seeds import seed_of
from transformers import PreTrainedModel

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Adapter:
    """LoraConfig arguments, the dtype on disk, and keys set in the saved config afterwards."""

    lora: dict
    stored_dtype: torch.dtype = torch.float32
    edits: dict = field(default_factory=dict)


TINY_LLAMA_ADAPTERS = {
    "plain-qv": Adapter({"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}),
    "all-linear": Adapter({"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}),
    "regex-targets": Adapter(
        {"r": 4, "lora_alpha": 4, "target_modules": r".*\.(0|2)\.self_attn\.(q|k)_proj"}
    ),
    "patterns": Adapter(
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "v_proj", "up_proj"],
            "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6, r"layers\.[02]\.mlp.*": 3},
            "alpha_pattern": {"q_proj": 5, r"model\.layers\.2\.self_attn\.v_proj": 3},
        }
    ),
    "rslora": Adapter({"r": 4, "lora_alpha": 6, "target_modules": ATTENTION, "use_rslora": True}),
    "rslora-patterns": Adapter(
        {
            "r": 8,
            "lora_alpha": 8,
            "target_modules": ["k_proj", "down_proj"],
            "use_rslora": True,
            "rank_pattern": {"down_proj": 5},
            "alpha_pattern": {"k_proj": 2},
        }
    ),
    "some-layers": Adapter(
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "o_proj"],
            "layers_to_transform": [0, 2],
            "layers_pattern": "layers",
        }
    ),
    "excluded-module": Adapter(
        {
            "r": 4,
            "lora_alpha": 8,
            "target_modules": ["v_proj", "gate_proj"],
            "exclude_modules": ["model.layers.1.self_attn.v_proj"],
        }
    ),
    "rank-1": Adapter({"r": 1, "lora_alpha": 3, "target_modules": ["k_proj", "o_proj"]}),
    "rank-3": Adapter({"r": 3, "lora_alpha": 5, "target_modules": ["v_proj", "up_proj"]}),
    "mlp-rank-16": Adapter({"r": 16, "lora_alpha": 16, "target_modules": MLP}),
    "stored-bf16": Adapter(
        {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION}, stored_dtype=torch.bfloat16
    ),
    "stored-fp16": Adapter(
        {"r": 4, "lora_alpha": 8, "target_modules": MLP}, stored_dtype=torch.float16
    ),
    # PEFT ignores the flag, with a warning, on nn.Linear, so nothing may be transposed. It also
    # resets the flag before it saves, so that only an edited file can carry it.
    "fan-in-fan-out": Adapter(
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"]},
        edits={"fan_in_fan_out": True},
    ),
}
OTHER_TINY_ADAPTERS = {
    "all-linear": Adapter({"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}),
    "rslora": Adapter(
        {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "k_proj"], "use_rslora": True}
    ),
}
SMOLLM2_ADAPTERS = {
    "random-qv": Adapter(
        {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]},
        stored_dtype=torch.bfloat16,
    ),
    "random-down": Adapter(
        {
            "r": 2,
            "lora_alpha": 2,
            "target_modules": ["down_proj"],
            "layers_to_transform": list(range(0, 30, 2)),
        }
    ),
}


def fill_random(model: torch.nn.Module, name: str, strength: float) -> None:
    """A and B such that B A x * scaling has about `strength` times the spread of x."""
    generator = torch.Generator().manual_seed(seed_of(name))
    for key, module in model.named_modules():
        if not key.endswith("lora_A.default"):
            continue
        owner = model.get_submodule(key.removesuffix(".lora_A.default"))
        up, scaling = owner.lora_B["default"], owner.scaling["default"]
        rank, inputs = module.weight.shape
        a = torch.randn(rank, inputs, generator=generator) / inputs**0.5
        b = torch.randn(up.weight.shape, generator=generator) * strength / (scaling * rank**0.5)
        module.weight.data.copy_(a)
        up.weight.data.copy_(b)


def rewrite_config(folder: Path, edits: dict) -> None:
    """Applies edits and sorts the targets, which PEFT keeps in a set and so saves in any order."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key].sort()
    path.write_text(json.dumps({**config, **edits}, indent=2, sort_keys=True) + "\n")


def write_adapter(
    base: PreTrainedModel, name: str, adapter: Adapter, strength: float, folder: Path
) -> None:
    """Makes one adapter on the base and saves it; the base is left as it was."""
    config = LoraConfig(task_type="CAUSAL_LM", **adapter.lora)
    model = get_peft_model(base, config)
    fill_random(model, f"{base.name_or_path}/{name}", strength)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(adapter.stored_dtype)
    model.save_pretrained(folder, save_embedding_layers=False)
    model.unload()
    (folder / "README.md").unlink()  # PEFT's empty model card
    rewrite_config(folder, adapter.edits)
