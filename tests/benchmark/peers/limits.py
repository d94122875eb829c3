"""What the machine allows for a cell: the time that its bytes and its arithmetic take at the rates of machine_limits.

A run is a prefill of all prompts and then one step a generated token, all requests together. Prefill is bound by arithmetic. A step
reads every weight once, each adapter that is in the batch once and the keys and values of every sequence; it takes the longer of the
time for these bytes and the time for its arithmetic. Nothing overlaps with anything else, and nothing else costs: no server is faster.
"""
import json
import subprocess
from pathlib import Path

from shapes import BYTES_EACH, RANK, Shape

BIN = Path(__file__).resolve().parents[3] / "build/release/bin"


def measure(threads: int) -> dict:
    return json.loads(subprocess.run([BIN / "machine_limits", f"--threads={threads}"], capture_output=True, text=True, check=True).stdout)


def _layer_weights(shape: Shape) -> int:
    return shape.num_hidden_layers * sum(out * inputs for out, inputs in shape.linear_layers().values())


def _head_weights(shape: Shape) -> int:
    return shape.vocab_size * shape.hidden_size


def _adapter_weights(shape: Shape) -> int:
    return shape.num_hidden_layers * sum(RANK * (out + inputs) for out, inputs in shape.linear_layers().values())


def _attention_flop(shape: Shape, context: int) -> float:
    """Of one token that sees `context` tokens: its products with the keys and with the values."""
    return 4.0 * shape.num_hidden_layers * shape.num_attention_heads * shape.head_dim * context


def least_seconds(cell, shape: Shape, limits: dict) -> float:
    """The time under which no server can run the cell on this machine."""
    rows, bytes_each = cell.concurrency, BYTES_EACH[cell.dtype]
    gflop_s = max(limits["gemm_gflop_s"][cell.dtype].values())
    adapted = _adapter_weights(shape) if cell.adapters else 0
    token_flop = 2.0 * (_layer_weights(shape) + adapted)
    head_flop = 2.0 * _head_weights(shape)
    prefill_flop = rows * (cell.prompt_tokens * (token_flop + _attention_flop(shape, cell.prompt_tokens / 2)) + head_flop)
    seconds = prefill_flop / gflop_s * 1e-9
    weight_bytes = bytes_each * (_layer_weights(shape) + _head_weights(shape) + min(cell.adapters, rows) * _adapter_weights(shape))
    kv_bytes = 2 * bytes_each * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    for step in range(1, cell.output_tokens):  # prefill gives the first token
        context = cell.prompt_tokens + step
        flop = rows * (token_flop + head_flop + _attention_flop(shape, context))
        seconds += max((weight_bytes + rows * context * kv_bytes) / limits["read_gb_s"], flop / gflop_s) * 1e-9
    return seconds


def share_of_limit(cell, shape: Shape, limits: dict, tokens_per_s: float) -> float:
    """1 is the limit."""
    return tokens_per_s * least_seconds(cell, shape, limits) / (cell.concurrency * cell.output_tokens)
