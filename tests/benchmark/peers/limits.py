"""What the machine allows for a cell: the time that its bytes and its arithmetic take at the rates of machine_limits.

A run is a prefill of all prompts and then one step a generated token, all requests together. Prefill is bound by arithmetic. A step
reads every weight once, each adapter that is in the batch once and the keys and values of every sequence; it takes the longer of the
time for these bytes and the time for its arithmetic. Nothing overlaps with anything else, and nothing else costs: no server is faster.
"""
import json
import subprocess
from collections.abc import Callable
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


def _step_seconds(cell, shape: Shape, limits: dict, context: int) -> float:
    """Of one decode step in which every sequence has `context` tokens."""
    rows, bytes_each = cell.concurrency, BYTES_EACH[cell.dtype]
    adapted = _adapter_weights(shape) if cell.adapters else 0
    flop = rows * (2.0 * (_layer_weights(shape) + adapted + _head_weights(shape)) + _attention_flop(shape, context))
    weight_bytes = bytes_each * (_layer_weights(shape) + _head_weights(shape) + min(cell.adapters, rows) * _adapter_weights(shape))
    kv_bytes = 2 * bytes_each * shape.num_hidden_layers * shape.num_key_value_heads * shape.head_dim
    return max((weight_bytes + rows * context * kv_bytes) / limits["read_gb_s"], flop / _gflop_s(cell, limits)) * 1e-9


def _gflop_s(cell, limits: dict) -> float:
    return max(limits["gemm_gflop_s"][cell.dtype].values())


def _decode_seconds(cell, shape: Shape, limits: dict) -> float:
    """Of all tokens but the first, which prefill gives."""
    return sum(_step_seconds(cell, shape, limits, cell.prompt_tokens + step) for step in range(1, cell.output_tokens))


def least_seconds(cell, shape: Shape, limits: dict) -> float:
    """The time under which no server can run the cell on this machine."""
    adapted = _adapter_weights(shape) if cell.adapters else 0
    token_flop = 2.0 * (_layer_weights(shape) + adapted)
    prefill_flop = cell.concurrency * (
        cell.prompt_tokens * (token_flop + _attention_flop(shape, cell.prompt_tokens / 2)) + 2.0 * _head_weights(shape))
    return prefill_flop / _gflop_s(cell, limits) * 1e-9 + _decode_seconds(cell, shape, limits)


def decode_tokens_per_s_limit(cell, shape: Shape, limits: dict) -> float:
    """Of one sequence among those of the cell, after its first token."""
    return (cell.output_tokens - 1) / _decode_seconds(cell, shape, limits)


def _combined(a: dict, b: dict, combine: Callable) -> dict:
    """Each rate that both have."""
    return {key: _combined(value, b[key], combine) if isinstance(value, dict) else combine(value, b[key])
            for key, value in a.items() if key in b}


def best(a: dict, b: dict) -> dict:
    """The higher of each rate: a limit is what the machine can do undisturbed."""
    return _combined(a, b, max)


def mean(a: dict, b: dict) -> dict:
    """Of each rate: what the machine gave on both sides of a run."""
    return _combined(a, b, lambda x, y: (x + y) / 2)


def sustained(limits: dict) -> dict:
    """With the rate at which memory was read for as long as a run takes, not that of its fastest moment."""
    return {**limits, "read_gb_s": limits["sustained_read_gb_s"]}


def share_of_limit(cell, shape: Shape, limits: dict, tokens_per_s: float) -> float:
    """1 is the limit."""
    return tokens_per_s * least_seconds(cell, shape, limits) / (cell.concurrency * cell.output_tokens)
