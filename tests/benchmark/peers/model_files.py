"""The models and adapters of the comparison, made from a seed: a Hugging Face folder for those who read it, a GGUF file for llama.cpp.

Random weights: the arithmetic costs what it costs whatever the numbers are, and nobody's licence is involved. The tokenizer is a
byte-level BPE whose tokens are pairs and triples of bytes, in the same order for every peer; prompts are token ids.
"""
import itertools
import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
from shapes import RANK, SHAPES, Shape

SEED = 20261125
WEIGHT_STD = 0.02
END_OF_TEXT = "<|endoftext|>"
NUMPY_DTYPES = {"bf16": np.dtype(ml_dtypes.bfloat16), "fp32": np.dtype(np.float32)}
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True)
class ModelFiles:
    """Where one model is. Adapter i of every format has the same numbers."""

    name: str
    dtype: str
    shape: Shape
    folder: Path  # Hugging Face
    gguf: Path
    adapters: list  # PEFT folders
    gguf_adapters: list


def make_model(cache: Path, name: str, dtype: str, num_adapters: int) -> ModelFiles:
    """Makes what is not there yet below `cache`; a file appears under its name when it is complete."""
    shape = SHAPES[name]
    root = cache / f"{name}-{dtype}"
    root.mkdir(parents=True, exist_ok=True)
    files = ModelFiles(
        name, dtype, shape, root / "hf", root / "model.gguf",
        [root / f"adapter-{i}" for i in range(num_adapters)], [root / f"adapter-{i}.gguf" for i in range(num_adapters)])
    _write_once(files.folder, lambda path: _write_folder(path, shape, dtype))
    _write_once(files.gguf, lambda path: _write_gguf(path, shape, dtype))
    for index, (folder, file) in enumerate(zip(files.adapters, files.gguf_adapters)):
        if not (folder.exists() and file.exists()):
            pairs = _random_adapter(shape, dtype, index)
            _write_once(folder, lambda path: _write_peft(path, pairs))
            _write_once(file, lambda path: _write_gguf_adapter(path, shape, pairs))
    return files


def write_adapter(folder: Path, shape: Shape, dtype: str, index: int):
    """One adapter as PEFT lays it out, for who needs more of them than are worth keeping."""
    _write_peft(folder, _random_adapter(shape, dtype, index))


def _write_once(path: Path, write):
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        write(partial)
        partial.rename(path)


def _normal(random: np.random.Generator, shape: tuple, dtype: str) -> np.ndarray:
    return (random.standard_normal(shape, dtype=np.float32) * WEIGHT_STD).astype(NUMPY_DTYPES[dtype])


def _weight_shapes(shape: Shape) -> dict:
    """Name in the checkpoint -> shape."""
    table = (shape.vocab_size, shape.hidden_size)
    shapes = {"model.embed_tokens.weight": table}
    for layer in range(shape.num_hidden_layers):
        for module, size in shape.linear_layers().items():
            shapes[f"model.layers.{layer}.{module}.weight"] = size
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"model.layers.{layer}.{norm}.weight"] = (shape.hidden_size,)
    shapes["model.norm.weight"] = (shape.hidden_size,)
    if not shape.tie_word_embeddings:
        shapes["lm_head.weight"] = table
    return shapes


def _weights(shape: Shape, dtype: str) -> Iterable:
    """(name, array), one after the other: no more than one is in memory. A norm is all ones."""
    for index, (name, size) in enumerate(_weight_shapes(shape).items()):
        random = np.random.Generator(np.random.SFC64((SEED, index)))
        yield name, np.ones(size, NUMPY_DTYPES[dtype]) if len(size) == 1 else _normal(random, size, dtype)


def _random_adapter(shape: Shape, dtype: str, index: int) -> dict:
    """(layer, module) -> (A [rank, in], B [out, rank])."""
    random = np.random.Generator(np.random.SFC64((SEED, 1 << 20, index)))
    return {
        (layer, module): (_normal(random, (RANK, size[1]), dtype), _normal(random, (size[0], RANK), dtype))
        for layer in range(shape.num_hidden_layers) for module, size in shape.linear_layers().items()}


# --- vocabulary ---

def _byte_symbols() -> list:
    """The 256 printable characters that stand for bytes in a byte-level BPE (GPT-2's table)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols.update({byte: chr(256 + rank) for rank, byte in enumerate(others)})
    return [symbols[byte] for byte in range(256)]


def _vocabulary(size: int) -> tuple:
    """(tokens, merges): the end of text, the bytes, then pairs of letters and digits, then triples, until `size`."""
    tokens = [END_OF_TEXT, *_byte_symbols()]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
    pairs = [(a, b) for a, b in itertools.product(letters, letters)]
    triples = ((a + b, c) for (a, b), c in itertools.product(pairs, letters))
    merges = list(itertools.islice(itertools.chain(pairs, triples), size - len(tokens)))
    return tokens + [left + right for left, right in merges], merges


# --- Hugging Face ---

SAFETENSORS_NAMES = {"bf16": "BF16", "fp32": "F32"}


def _save_safetensors(path: Path, dtype: str, shapes: dict, arrays: Iterable):
    """As safetensors' save_file, without all arrays in memory; `arrays` in the order of `shapes`."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        end = offset + int(np.prod(shape)) * NUMPY_DTYPES[dtype].itemsize
        header[name] = {"dtype": SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in arrays:
            file.write(np.ascontiguousarray(array).view(np.uint8).data)


def _write_folder(path: Path, shape: Shape, dtype: str):
    path.mkdir(exist_ok=True)
    tokens, merges = _vocabulary(shape.vocab_size)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "torch_dtype": {"bf16": "bfloat16", "fp32": "float32"}[dtype], "bos_token_id": 0, "eos_token_id": 0,
        "attention_bias": False, "mlp_bias": False, "head_dim": shape.head_dim,
        **{key: getattr(shape, key) for key in Shape.__dataclass_fields__},
    }
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [{"id": 0, "content": END_OF_TEXT, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {token: index for index, token in enumerate(tokens)},
                  "merges": [list(merge) for merge in merges]},
    }
    (path / "config.json").write_text(json.dumps(config, indent=2))
    (path / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0}))
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (path / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
        "model_max_length": shape.max_position_embeddings}))
    _save_safetensors(path / "model.safetensors", dtype, _weight_shapes(shape), (array for _, array in _weights(shape, dtype)))


def _write_peft(path: Path, pairs: dict):
    path.mkdir(exist_ok=True)
    modules = sorted({module.rsplit(".", 1)[1] for _, module in pairs})
    (path / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "target_modules": modules,
        "lora_dropout": 0.0, "bias": "none", "inference_mode": True, "base_model_name_or_path": None}))
    tensors = {}
    for (layer, module), (down, up) in pairs.items():
        prefix = f"base_model.model.model.layers.{layer}.{module}"
        tensors[f"{prefix}.lora_A.weight"] = down
        tensors[f"{prefix}.lora_B.weight"] = up
    dtype = next(name for name, numpy in NUMPY_DTYPES.items() if numpy == down.dtype)
    shapes = {name: array.shape for name, array in tensors.items()}
    _save_safetensors(path / "adapter_model.safetensors", dtype, shapes, tensors.values())


# --- GGUF ---

def _interleave(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a q or k projection in the order of llama.cpp's rotary embedding: pairs beside each other, not halves."""
    rows, *rest = weight.shape
    return weight.reshape(num_heads, 2, rows // num_heads // 2, *rest).swapaxes(1, 2).reshape(weight.shape)


def _in_gguf_order(shape: Shape, module: str, weight: np.ndarray) -> np.ndarray:
    heads = {"self_attn.q_proj": shape.num_attention_heads, "self_attn.k_proj": shape.num_key_value_heads}.get(module)
    return weight if heads is None else _interleave(weight, heads)


def _gguf_array(array: np.ndarray) -> tuple:
    """(array as the writer takes it, GGUF's own dtype where NumPy has none)."""
    array = np.ascontiguousarray(array)
    return (array.view(np.uint8), gguf.GGMLQuantizationType.BF16) if array.dtype == NUMPY_DTYPES["bf16"] else (array, None)


def _add_info(writer: gguf.GGUFWriter, name: str, size: tuple, dtype: str):
    itemsize = NUMPY_DTYPES[dtype].itemsize
    raw, raw_dtype = (np.dtype(np.uint8), gguf.GGMLQuantizationType.BF16) if dtype == "bf16" else (NUMPY_DTYPES[dtype], None)
    in_raw_units = (*size[:-1], size[-1] * itemsize) if raw_dtype is not None else size
    writer.add_tensor_info(name, in_raw_units, raw, int(np.prod(size)) * itemsize, raw_dtype=raw_dtype)


def _write_head(writer: gguf.GGUFWriter):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _gguf_name(name: str) -> tuple:
    """(name in a GGUF file, the module below its layer or "")."""
    parts = name.removesuffix(".weight").split(".")
    if parts[1:2] == ["layers"]:
        module = ".".join(parts[3:])
        return f"blk.{parts[2]}.{GGUF_NAMES[module]}.weight", module
    return {"embed_tokens": "token_embd", "norm": "output_norm", "lm_head": "output"}[parts[-1]] + ".weight", ""


def _write_gguf(path: Path, shape: Shape, dtype: str):
    tokens, merges = _vocabulary(shape.vocab_size)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_head_count_kv(shape.num_key_value_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_file_type({"bf16": gguf.LlamaFileType.MOSTLY_BF16, "fp32": gguf.LlamaFileType.ALL_F32}[dtype])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (len(tokens) - 1)])
    writer.add_token_merges([f"{left} {right}" for left, right in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    # Norms are vectors, which llama.cpp wants in fp32.
    for name, size in _weight_shapes(shape).items():
        _add_info(writer, _gguf_name(name)[0], size, "fp32" if len(size) == 1 else dtype)
    _write_head(writer)
    for name, weight in _weights(shape, dtype):
        weight = weight.astype(np.float32) if weight.ndim == 1 else _in_gguf_order(shape, _gguf_name(name)[1], weight)
        writer.write_tensor_data(_gguf_array(weight)[0])
    writer.close()


def _write_gguf_adapter(path: Path, shape: Shape, pairs: dict):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for (layer, module), (down, up) in pairs.items():
        name = f"blk.{layer}.{GGUF_NAMES[module]}.weight"
        for suffix, weight in (("lora_a", down), ("lora_b", _in_gguf_order(shape, module, up))):
            array, raw_dtype = _gguf_array(weight)
            writer.add_tensor(f"{name}.{suffix}", array, raw_dtype=raw_dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
