"""The AdapterHub configurations of the golden matrix, and random weights for them."""

from dataclasses import dataclass

import adapters
import torch
from seeds import seed_of

# The spread of what an adapter adds, in parts of the spread of its input.
STRENGTH = 0.6
GEMMA_NOTE = (
    "the library applies the last layer's post-feedforward norm in every layer: its hooks capture"
    " the loop variable"
)
CONVERTED_NOTE = (
    "the library cannot save ln_before as safetensors (adapter_norm_before and adapter_down.0 share"
    " memory): the file is its pytorch_adapter.bin converted, with both names"
)
GEMMA_BOTH_NOTE = GEMMA_NOTE.replace("post-feedforward", "post-attention and -feedforward")


@dataclass(frozen=True)
class Method:
    """One row of the matrix: how to make its config, and what the library does with it."""

    config: adapters.AdapterConfig
    with_head: bool = False
    converted: bool = False
    note: str = ""


def double(**options) -> adapters.AdapterConfig:
    """After attention and after the MLP (Houlsby)."""
    return adapters.DoubleSeqBnConfig(**{"reduction_factor": 7, **options})


def single(**options) -> adapters.AdapterConfig:
    """After the MLP (Pfeiffer)."""
    return adapters.SeqBnConfig(**{"reduction_factor": 6, **options})


def parallel(**options) -> adapters.AdapterConfig:
    """Beside the MLP."""
    return adapters.ParBnConfig(**{"reduction_factor": 5, **options})


def bottleneck_methods() -> dict[str, adapters.AdapterConfig]:
    """Every option of a bottleneck, with each placement that it matters for."""
    return {
        "double_seq_bn": double(),
        "double_seq_bn-learned": double(scaling="learned"),
        "double_seq_bn-leave-out": double(leave_out=[1]),
        "double_seq_bn-ln-before": double(ln_before=True),
        "double_seq_bn-ln-after": double(ln_after=True),
        "double_seq_bn-adapter-residual-before-ln": double(
            ln_after=True, adapter_residual_before_ln=True
        ),
        "double_seq_bn-original-ln-before": double(original_ln_before=True),
        "double_seq_bn-no-original-ln-after": double(original_ln_after=False),
        "seq_bn": single(),
        "seq_bn-gelu": single(non_linearity="gelu"),
        "seq_bn-gelu-new": single(non_linearity="gelu_new"),
        "seq_bn-silu": single(non_linearity="silu"),
        "seq_bn-tanh": single(non_linearity="tanh"),
        "seq_bn-leakyrelu": single(non_linearity="leakyrelu"),
        "seq_bn-float": single(scaling=0.7),
        "seq_bn-channel": single(scaling="channel"),
        "seq_bn-reduction-per-layer": single(reduction_factor={"0": 4, "default": 9}),
        "seq_bn-residual-after-ln": single(residual_before_ln=False),
        "seq_bn-residual-post-add": single(residual_before_ln="post_add"),
        "seq_bn-no-original-ln-before": single(original_ln_before=False),
        "seq_bn-no-original-ln-after": single(original_ln_after=False),
        "seq_bn-ln-before": single(ln_before=True),
        "seq_bn-ln-after": single(ln_after=True),
        "seq_bn-adapter-residual-before-ln": single(ln_after=True, adapter_residual_before_ln=True),
        "par_bn": parallel(),
        "par_bn-float": parallel(scaling=1.7),
        "par_bn-learned": parallel(scaling="learned"),
        "par_bn-channel": parallel(scaling="channel"),
        "par_bn-both": parallel(mh_adapter=True, non_linearity="tanh"),
        "par_bn-ln-before": parallel(ln_before=True),
        "par_bn-ln-after": parallel(ln_after=True),
    }


def other_methods() -> dict[str, adapters.AdapterConfig]:
    """The library's own LoRA and (IA)^3, and what it has of virtual tokens."""
    return {
        "lora": adapters.LoRAConfig(r=4, alpha=6),
        "lora-everywhere": adapters.LoRAConfig(
            r=3, alpha=7, attn_matrices=["q", "k", "v"], intermediate_lora=True, output_lora=True
        ),
        "lora-k-only": adapters.LoRAConfig(r=5, alpha=5, attn_matrices=["k"], leave_out=[0]),
        "ia3": adapters.IA3Config(),
        "ia3-output": adapters.IA3Config(alpha=2, attn_matrices=["q", "v"], output_lora=True),
        "prefix_tuning": adapters.PrefixTuningConfig(prefix_length=5, bottleneck_size=8),
        "prompt_tuning": adapters.PromptTuningConfig(prompt_length=5),
    }


def notes_of(architecture: str, config: adapters.AdapterConfig) -> str:
    """What the library does wrong with this config on this architecture."""
    notes = []
    if config.get("ln_before"):
        notes.append(CONVERTED_NOTE)
    if architecture.startswith("gemma") and config.get("original_ln_before"):
        notes.append(GEMMA_BOTH_NOTE if config["mh_adapter"] else GEMMA_NOTE)
    return "; ".join(notes)


def methods_of(architecture: str) -> dict[str, Method]:
    """All rows of the AdapterHub half of the matrix; one is saved with the library's head files."""
    return {
        name: Method(
            config,
            with_head=(architecture, name) == ("llama", "double_seq_bn"),
            converted=bool(config.get("ln_before")),
            note=notes_of(architecture, config),
        )
        for name, config in (bottleneck_methods() | other_methods()).items()
    }


def random_value(key: str, parameter: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The value of one adapter weight, from normal values of its shape."""
    if key.endswith("scaling"):
        return 1.5 + 0.5 * values
    if "adapter_norm" in key or (parameter.dim() == 1 and "adapter_down.0" in key):
        return values * 0.3 + float(parameter.mean())
    if key.endswith("bias"):
        return 0.2 * values
    if "lora_B" in key and parameter.shape[1] == 1:
        return 1 + 0.5 * values
    strength = STRENGTH if "adapter_up" in key or "lora_B" in key else 1.0
    return strength * values / values.shape[1] ** 0.5


@torch.no_grad()
def fill_random(model: torch.nn.Module, adapter: str, name: str) -> None:
    """Sets every weight of an adapter to random values that depend on the name alone."""
    generator = torch.Generator().manual_seed(seed_of(name))
    for key, parameter in sorted(model.named_parameters()):
        if f".{adapter}." in key:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(random_value(key, parameter, values))
