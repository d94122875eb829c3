"""Random values for every trainable weight of a PEFT model."""

import torch
from seeds import seed_of

# The spread of what an adapter adds, in parts of the spread of its module's input.
STRENGTH = 0.6


def attribute_owner(model: torch.nn.Module, key: str, part: str) -> torch.nn.Module:
    """The adapter layer whose attribute `part` starts the last stretch of a parameter's name."""
    return model.get_submodule(key[: key.index(f".{part}")])


def scaling_of(layer: torch.nn.Module) -> float:
    """The layer's factor for the adapter `default`."""
    return layer.scaling["default"]


def lora_factor(model: torch.nn.Module, key: str, values: torch.Tensor) -> torch.Tensor:
    """A LoRA matrix, bias or magnitude."""
    owner = attribute_owner(model, key, "lora_")
    if "lora_magnitude_vector" in key:
        current = model.get_parameter(key)
        return current.abs() * (1 + 0.3 * values)
    if "lora_embedding_A" in key:
        return values
    if "lora_embedding_B" in key:
        spread = owner.base_layer.weight.std()
        return values * spread / (scaling_of(owner) * values.shape[1] ** 0.5)
    if key.endswith("lora_B.default.bias"):
        return 0.3 * values / scaling_of(owner)
    if "lora_A" in key:
        return values / values.shape[1] ** 0.5
    return values * STRENGTH / (scaling_of(owner) * values.shape[1] ** 0.5)


def hadamard_factor(model: torch.nn.Module, key: str, values: torch.Tensor) -> torch.Tensor:
    """One of the four matrices of LoHa: delta = scaling (a1 b1) * (a2 b2)."""
    owner = attribute_owner(model, key, "hada_")
    wanted = STRENGTH / owner.base_layer.weight.shape[1] ** 0.5 / scaling_of(owner)
    rank = min(values.shape)
    return values * (wanted**0.5 / rank**0.5) ** 0.5


def kronecker_factor(model: torch.nn.Module, key: str, values: torch.Tensor) -> torch.Tensor:
    """One of the matrices of LoKr: delta = scaling kron(w1, w2), each of them whole or a b."""
    owner = attribute_owner(model, key, "lokr_")
    wanted = STRENGTH / owner.base_layer.weight.shape[1] ** 0.5 / scaling_of(owner)
    if "_a." in key or "_b." in key:
        rank = values.shape[1] if "_a." in key else values.shape[0]
        return values * (wanted**0.5 / rank**0.5) ** 0.5
    return values * wanted**0.5


def prompt_encoder_weight(
    key: str, values: torch.Tensor, spread: float, is_prefix: bool
) -> torch.Tensor:
    """Virtual embeddings of the spread of the model's own, or the network that makes them."""
    if key.endswith("bias") or "bias_" in key:
        return 0.1 * values
    if "embedding" in key:
        return values * (1.0 if is_prefix else spread)
    return values / values.shape[1] ** 0.5


def embedding_spread(model: torch.nn.Module) -> float:
    """The spread of what the first layer gets to see; Gemma scales its embedding."""
    embedding = model.get_input_embeddings()
    scale = float(getattr(embedding, "embed_scale", 1.0))
    return float(embedding.weight.std()) * scale


def random_value(
    model: torch.nn.Module, key: str, parameter: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """The value of one trainable parameter, from normal values of its shape."""
    if "prompt_encoder" in key:
        is_prefix = model.active_peft_config.peft_type == "PREFIX_TUNING"
        return prompt_encoder_weight(key, values, embedding_spread(model.base_model), is_prefix)
    if "trainable_tokens_delta" in key:
        return values * 0.3
    if "lora_" in key:
        return lora_factor(model, key, values)
    if "hada_" in key:
        return hadamard_factor(model, key, values)
    if "lokr_" in key:
        return kronecker_factor(model, key, values)
    if "ia3_l" in key:
        return 1 + 0.5 * values
    if "vera_lambda_d" in key:
        return values
    if "vera_lambda_b" in key:
        return STRENGTH * values
    if key.endswith(".bias"):
        return parameter + 0.3 * values
    if "modules_to_save" in key:
        return parameter + 0.2 * values
    raise ValueError(f"no rule for {key}")


@torch.no_grad()
def fill_random(model: torch.nn.Module, name: str) -> None:
    """Sets every trainable parameter to random values that depend on the name alone."""
    generator = torch.Generator().manual_seed(seed_of(name))
    for key, parameter in sorted(model.named_parameters()):
        if parameter.requires_grad:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(random_value(model, key, parameter, values))
