#!/usr/bin/env python3
"""A random bf16 model of Llama-7B's shape as a Hugging Face folder, or the limits of the GPU that one is held to.

    make_model.py FOLDER        weights are drawn on the GPU; 13.5 GB
    make_model.py --limits      one line of JSON: bytes copied a second (read and written), flops of a bf16 product
"""
import argparse
import json
import pathlib
import time

import torch

CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2,
}


def draw(*shape: int) -> torch.Tensor:
    return (torch.randn(*shape, device="cuda") * 0.02).to(torch.bfloat16).cpu()


def layer(index: int) -> dict[str, torch.Tensor]:
    hidden, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    prefix = f"model.layers.{index}."
    tensors = {prefix + f"self_attn.{name}_proj.weight": draw(hidden, hidden) for name in "qkvo"}
    tensors |= {prefix + f"mlp.{name}_proj.weight": draw(inner, hidden) for name in ("gate", "up")}
    tensors[prefix + "mlp.down_proj.weight"] = draw(hidden, inner)
    for name in ("input_layernorm", "post_attention_layernorm"):
        tensors[prefix + name + ".weight"] = torch.ones(hidden, dtype=torch.bfloat16)
    return tensors


def write_model(folder: pathlib.Path) -> None:
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    hidden, vocab = CONFIG["hidden_size"], CONFIG["vocab_size"]
    weight_map = {}

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name)
        weight_map.update({tensor: name for tensor in tensors})

    save("ends.safetensors", {
        "model.embed_tokens.weight": draw(vocab, hidden), "lm_head.weight": draw(vocab, hidden),
        "model.norm.weight": torch.ones(hidden, dtype=torch.bfloat16)})
    for index in range(CONFIG["num_hidden_layers"]):
        save(f"layer-{index}.safetensors", layer(index))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def best_seconds(function, repeats: int = 10) -> float:
    best = float("inf")
    for _ in range(repeats):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        function()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def limits() -> dict[str, float]:
    source = torch.empty(1 << 32, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    copy = best_seconds(lambda: target.copy_(source))
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = best_seconds(lambda: torch.mm(a, b))
    weights = 2 * sum(p for p in (
        32 * (4 * 4096**2 + 3 * 4096 * 11008), 32000 * 4096))
    return {"device": torch.cuda.get_device_name(), "copy_bytes_per_s": 2 * source.numel() / copy,
            "bf16_flops_per_s": 2 * 8192**3 / product, "weight_bytes_per_step": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--limits", action="store_true")
    arguments = parser.parse_args()
    if arguments.limits:
        print(json.dumps(limits()))
    elif arguments.folder is None:
        parser.error("name a folder, or --limits")
    else:
        write_model(arguments.folder)


if __name__ == "__main__":
    main()
