"""The cases of the golden matrix: prompts, greedy steps, and what is kept of them."""

from collections.abc import Callable

import torch
from golden_writer import STEPS, Goldens
from seeds import random_prompt

PROMPT_LENGTHS = (1, 10, 37)
# Prompts are drawn until no step's two best logits are closer: another order of summation must not
# change a token.
MIN_MARGIN = 1e-3
MAX_ATTEMPTS = 200
# Two ways of a library to compute the same may differ by as much.
SELF_TOLERANCE = 5e-5
# An adapter that changes less than this proves nothing.
MIN_EFFECT = 0.1
PROBE_LENGTH = 12

LogitsOf = Callable[[torch.nn.Module, list[int]], torch.Tensor]


def prompt_of(name: str, length: int, vocab_size: int, ids: list[int], attempt: int) -> list[int]:
    """A random prompt in which `ids` are spread, as many as there is room for."""
    prompt = random_prompt(f"{name}/{length}/{attempt}", length, vocab_size)
    for i, token in enumerate(ids[:length]):
        prompt[i * length // len(ids)] = token
    return prompt


@torch.inference_mode()
def uncached_logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Logits [STEPS, vocab] of greedy decoding by one whole forward pass a step."""
    ids, rows = list(prompt), []
    for _ in range(STEPS):
        row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        rows.append(row)
        ids.append(int(row.argmax()))
    return torch.stack(rows)


@torch.inference_mode()
def whole_pass_logits(model: torch.nn.Module, ids: list[int], rows: int) -> torch.Tensor:
    """Logits [rows, vocab] of the last positions of one forward pass over a text."""
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -rows:]


def probe(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Logits [PROBE_LENGTH, vocab] of a fixed text that contains `ids`."""
    text = prompt_of("probe", PROBE_LENGTH, model.config.vocab_size, ids, 0)
    return whole_pass_logits(model, text, PROBE_LENGTH)


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference of two tensors."""
    return float((a - b).abs().max())


def untied_case(
    model: torch.nn.Module, name: str, length: int, ids: list[int], logits_of: LogitsOf
) -> tuple[list[int], torch.Tensor]:
    """The first of the seeded prompts without a near tie, and its logits [STEPS, vocab]."""
    for attempt in range(MAX_ATTEMPTS):
        prompt = prompt_of(name, length, model.config.vocab_size, ids, attempt)
        logits = logits_of(model, prompt)
        best = logits.topk(2, dim=-1).values
        if float((best[:, 0] - best[:, 1]).min()) >= MIN_MARGIN:
            return prompt, logits
    raise RuntimeError(f"{name}: no prompt of {length} without a near tie")


def add_cases(
    goldens: Goldens,
    model: torch.nn.Module,
    name: str,
    adapter: str | None,
    ids: list[int],
    logits_of: LogitsOf,
    kept: int = 1,
    **more,
) -> str:
    """Adds one case of each length; returns a note if the library disagrees with itself.

    The steps of `logits_of` are compared with one pass over the whole text.
    """
    worst = 0.0
    for length in PROMPT_LENGTHS:
        prompt, logits = untied_case(model, f"{goldens.model}/{name}", length, ids, logits_of)
        tokens = logits.argmax(dim=-1).tolist()
        whole = whole_pass_logits(model, prompt + tokens[:-1], STEPS)
        worst = max(worst, difference(whole, logits))
        goldens.add(f"{name}/{length}", adapter, prompt, logits, kept, **more)
    if worst > SELF_TOLERANCE:
        return f"one pass over the whole text differs from the steps by up to {worst:.2g}"
    return ""
