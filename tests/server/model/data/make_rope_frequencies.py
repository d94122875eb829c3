#!/usr/bin/env python3
"""Writes rope_frequencies.json: inverse frequencies and attention scaling as transformers has them.

    python tests/server/model/data/make_rope_frequencies.py

Needs transformers 5.23 and torch 2.11. Every entry holds a whole config.json, the sequence length,
and what ROPE_INIT_FUNCTIONS (or the default of Llama) returns for them.
"""

import json
from pathlib import Path

import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

BASE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_hidden_layers": 1,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 2048,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
CASES = {
    "default": {},
    "theta-500000-head-128": {"rope_theta": 500000.0, "head_dim": 128},
    "linear-old-spelling": {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 20000.0}},
    "llama3": {"rope_theta": 500000.0, "rope_scaling": LLAMA3, "max_position_embeddings": 131072},
    "llama3-v5": {
        "rope_parameters": LLAMA3 | {"rope_theta": 500000.0, "factor": 32.0},
        "max_position_embeddings": 131072,
        "head_dim": 64,
    },
    "yarn": {"rope_theta": 10000.0, "rope_scaling": YARN},
    "yarn-no-truncate": {"rope_parameters": YARN | {"rope_theta": 1000.0, "truncate": False}},
    "yarn-mscale": {"rope_parameters": YARN | {"rope_theta": 1e6, "mscale": 0.7, "mscale_all_dim": 0.9}},
    "yarn-attention-factor": {"rope_parameters": YARN | {"rope_theta": 1e4, "attention_factor": 1.5}},
    "yarn-betas": {"rope_parameters": YARN | {"rope_theta": 1e4, "beta_fast": 8.0, "beta_slow": 0.5}},
    "dynamic-short": {"rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "dynamic-long": {"rope_theta": 10000.0, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "dynamic-longer": {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 5e5}},
}
LENGTHS = {"dynamic-short": 100, "dynamic-long": 2049, "dynamic-longer": 6000}


def main() -> None:
    """Writes the file beside this script."""
    cases = []
    for name, fields in CASES.items():
        config_json = BASE | fields
        # from_dict changes what it is given
        config = LlamaConfig.from_dict(json.loads(json.dumps(config_json)))
        rope_type = config.rope_parameters["rope_type"]
        compute = ROPE_INIT_FUNCTIONS.get(
            rope_type, LlamaRotaryEmbedding.compute_default_rope_parameters
        )
        length = LENGTHS.get(name, 1)
        arguments = {"seq_len": torch.tensor(length)} if rope_type == "dynamic" else {}
        frequencies, scaling = compute(config, **arguments)
        cases.append(
            {
                "name": name,
                "config": config_json,
                "length": length,
                "inv_freq": frequencies.tolist(),
                "attention_scaling": float(scaling),
            }
        )
    path = Path(__file__).with_name("rope_frequencies.json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
