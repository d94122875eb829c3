"""Tiny random models, one of each architecture, that transformers 4 and 5 load alike."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from seeds import seed_of

# Sizes are chosen so that few of them divide another: a stride taken for another is an error.
ROPE_THETA = 10000.0
SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class MatrixModel:
    """Arguments of a transformers 5 config, and the keys by which transformers 4 knows them."""

    config_class: str
    config: dict
    legacy_keys: dict = field(default_factory=lambda: {"rope_theta": ROPE_THETA})


def shape(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, vocab: int) -> dict:
    """The config arguments that all architectures but GPT-2 name alike."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocab,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def rope(theta: float = ROPE_THETA) -> dict:
    """Plain rotary embedding as transformers 5 writes it."""
    return {"rope_type": "default", "rope_theta": theta}


MATRIX_MODELS = {
    "llama": MatrixModel(
        "LlamaConfig",
        {
            **shape(hidden=42, layers=3, heads=6, kv_heads=2, mlp=70, vocab=211),
            "head_dim": 10,
            "rms_norm_eps": 1e-5,
            "rope_parameters": rope(),
            "tie_word_embeddings": False,
        },
    ),
    # The window is shorter than all but the shortest contexts.
    "mistral": MatrixModel(
        "MistralConfig",
        {
            **shape(hidden=44, layers=3, heads=4, kv_heads=2, mlp=78, vocab=223),
            "head_dim": 14,
            "rms_norm_eps": 1e-5,
            "rope_parameters": rope(),
            "sliding_window": 13,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2": MatrixModel(
        "Qwen2Config",
        {
            **shape(hidden=48, layers=3, heads=6, kv_heads=3, mlp=76, vocab=227),
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope(20000.0),
            "tie_word_embeddings": True,
        },
        {"rope_theta": 20000.0},
    ),
    "qwen3": MatrixModel(
        "Qwen3Config",
        {
            **shape(hidden=40, layers=3, heads=4, kv_heads=2, mlp=66, vocab=229),
            "head_dim": 12,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope(50000.0),
            "tie_word_embeddings": True,
        },
        {"rope_theta": 50000.0},
    ),
    "gemma2": MatrixModel(
        "Gemma2Config",
        {
            **shape(hidden=36, layers=4, heads=6, kv_heads=2, mlp=62, vocab=233),
            "head_dim": 14,
            "rms_norm_eps": 1e-6,
            "rope_parameters": rope(),
            "sliding_window": 11,
            "layer_types": [SLIDING, FULL, SLIDING, FULL],
            "query_pre_attn_scalar": 9,
            "attn_logit_softcapping": 2.5,
            "final_logit_softcapping": 6.0,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
    ),
    "gemma3": MatrixModel(
        "Gemma3TextConfig",
        {
            **shape(hidden=45, layers=4, heads=3, kv_heads=1, mlp=74, vocab=239),
            "head_dim": 16,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {FULL: rope(30000.0), SLIDING: rope(5000.0)},
            "sliding_window": 10,
            "layer_types": [SLIDING, SLIDING, FULL, SLIDING],
            "query_pre_attn_scalar": 13,
            "hidden_activation": "gelu_pytorch_tanh",
            "tie_word_embeddings": True,
        },
        {"rope_theta": 30000.0, "rope_local_base_freq": 5000.0},
    ),
    "gpt2": MatrixModel(
        "GPT2Config",
        {
            "n_embd": 45,
            "n_layer": 3,
            "n_head": 3,
            "n_inner": 98,
            "vocab_size": 241,
            "n_positions": 128,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-5,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        {},
    ),
}


def random_weight(
    key: str, weight: torch.Tensor, model: torch.nn.Module, generator: torch.Generator
) -> torch.Tensor:
    """A random value for one weight; logits get a spread of about 2, so that two rarely tie."""
    values = torch.randn(weight.shape, generator=generator)
    if "norm" in key or ".ln_" in key:
        # Gemma stores the weight less one.
        centre = 0.0 if key.endswith("bias") or "Gemma" in type(model).__name__ else 1.0
        return centre + 0.2 * values
    if key.endswith("bias"):
        return 0.2 * values
    if weight.shape[0] == model.config.vocab_size:
        return 0.3 * values
    if key.endswith("wpe.weight"):
        return 0.15 * values
    owner = model.get_submodule(key.removesuffix(".weight"))
    inputs = weight.shape[0] if type(owner).__name__ == "Conv1D" else weight.shape[1]
    return values * 1.2 / inputs**0.5


def write_model(name: str, folder: Path) -> None:
    """Writes config.json and model.safetensors of one model."""
    recipe = MATRIX_MODELS[name]
    config = getattr(transformers, recipe.config_class)(**recipe.config)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed_of(name))
    for key, weight in model.named_parameters():
        weight.data.copy_(random_weight(key, weight, model, generator))
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    path = folder / "model.safetensors"
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in sorted(file.keys())}
    save_file(tensors, path, metadata={"format": "pt"})
    path = folder / "config.json"
    written = {**json.loads(path.read_text()), **recipe.legacy_keys}
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
