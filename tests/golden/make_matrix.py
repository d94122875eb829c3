#!/usr/bin/env python3
"""Makes the models of the golden matrix and all of its cells that transformers and PEFT compute.

    python tests/golden/make_matrix.py models
    python tests/golden/make_matrix.py peft [ARCHITECTURE ...]

`models` writes data/matrix/<architecture>/model; `peft` writes adapters and goldens beside them and
the cells of data/matrix/matrix.json. Prints one line a cell.
"""

import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from golden_writer import STEPS, Goldens
from matrix_cells import MATRIX, Cell, emptied, error_text, write_cells
from matrix_models import MATRIX_MODELS, write_model
from matrix_peft_methods import Method, methods_of
from matrix_peft_weights import fill_random
from peft import PeftModel, get_peft_model
from reference import VERSIONS, greedy_logits, load
from seeds import random_prompt

PROMPT_LENGTHS = (1, 10, 37)
MIN_MARGIN = 1e-3
MAX_ATTEMPTS = 200
# The two ways of the library to compute the same may differ by as much.
SELF_TOLERANCE = 5e-5


@torch.inference_mode()
def uncached_logits(model: torch.nn.Module, prompt: list[int], steps: int = STEPS) -> torch.Tensor:
    """Logits [steps, vocab] of greedy decoding by one whole forward pass a step."""
    ids, rows = list(prompt), []
    for _ in range(steps):
        row = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        rows.append(row)
        ids.append(int(row.argmax()))
    return torch.stack(rows)


@torch.inference_mode()
def generated_logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Logits [STEPS, vocab] of the library's own greedy generation with a KV cache."""
    output = model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=STEPS,
        min_new_tokens=STEPS,
        do_sample=False,
        eos_token_id=None,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return torch.stack([step[0] for step in output.logits])


def case_logits(model: torch.nn.Module, prompt: list[int]) -> torch.Tensor:
    """Logits [STEPS, vocab] of one case: the library's generation where virtual tokens precede."""
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return generated_logits(model, prompt)
    return greedy_logits(model, prompt)


def check_against_whole_pass(
    model: torch.nn.Module, prompt: list[int], logits: torch.Tensor
) -> float:
    """The largest difference of the cached steps from one pass over the whole text."""
    tokens = logits.argmax(dim=-1).tolist()
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([prompt + tokens[:-1]])).logits[0, -STEPS:]
    return float((whole - logits).abs().max())


def prompt_of(name: str, length: int, vocab_size: int, ids: list[int], attempt: int) -> list[int]:
    """A random prompt in which `ids` are spread, as many as there is room for."""
    prompt = random_prompt(f"{name}/{length}/{attempt}", length, vocab_size)
    for i, token in enumerate(ids[:length]):
        prompt[i * length // len(ids)] = token
    return prompt


def add_cases(goldens: Goldens, model: torch.nn.Module, adapter: str | None, ids: list[int]) -> str:
    """Adds one case of each length; returns a note where the library disagrees with itself.

    Prompts are drawn until no step is close to a tie.
    """
    name = adapter or "base"
    worst = 0.0
    for length in PROMPT_LENGTHS:
        for attempt in range(MAX_ATTEMPTS):
            prompt = prompt_of(
                f"{goldens.model}/{name}", length, model.config.vocab_size, ids, attempt
            )
            logits = case_logits(model, prompt)
            best = logits.topk(2, dim=-1).values
            if float((best[:, 0] - best[:, 1]).min()) >= MIN_MARGIN:
                break
        else:
            raise RuntimeError(f"{goldens.model}/{name}: no prompt of {length} without a near tie")
        worst = max(worst, check_against_whole_pass(model, prompt, logits))
        kept = STEPS if adapter is None else 1
        goldens.add(f"{name}/{length}", adapter, prompt, logits, kept)
    if worst > SELF_TOLERANCE:
        return f"a whole forward pass differs from the cached steps by up to {worst:.2g}"
    return ""


def write_adapter(model_dir: Path, name: str, method: Method, folder: Path) -> torch.Tensor:
    """Makes and saves one adapter; returns the logits of one text by the model that saved it."""
    base = load(model_dir, None)
    base.name_or_path = name.split("/")[0]
    torch.manual_seed(0)
    model = get_peft_model(base, method.config)
    fill_random(model, name)
    model.eval()
    model.save_pretrained(folder, **method.save)
    (folder / "README.md").unlink()  # PEFT's empty model card
    return probe(model, method.prompt_ids)


@torch.inference_mode()
def probe(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Logits [12, vocab] of a fixed text."""
    text = prompt_of("probe", 12, model.config.vocab_size, ids, 0)
    return model(input_ids=torch.tensor([text])).logits[0, -12:]


def make_cell(goldens: Goldens, name: str, method: Method, folder: Path) -> Cell:
    """One adapter with its goldens, or the reason why there is none."""
    architecture = goldens.model
    model_dir = folder.parent / "model"
    adapter_dir = folder / "adapters" / name
    num_cases = len(goldens.cases)
    try:
        saved = write_adapter(model_dir, f"{architecture}/{name}", method, adapter_dir)
        model = load(model_dir, adapter_dir)
        loaded = probe(model, method.prompt_ids)
        notes = [add_cases(goldens, model, name, method.prompt_ids)]
    except Exception as error:  # whatever the libraries throw is the cell's content
        for case in goldens.cases[num_cases:]:
            goldens.logits.pop(case["name"])
        del goldens.cases[num_cases:]
        if adapter_dir.exists():
            emptied(adapter_dir).rmdir()
        return Cell(architecture, "peft", name, "unsupported", error_text(error))
    lost = float((saved - loaded).abs().max())
    if lost > 1e-5:
        notes.append(f"what was trained is not what is loaded: logits differ by up to {lost:.2g}")
    effect = float((loaded - probe(load(model_dir, None), method.prompt_ids)).abs().max())
    assert effect > 0.1, f"{architecture}/{name} changes logits by {effect} only"
    goldens.adapters[name] = adapter_dir
    note = "; ".join(note for note in notes if note)
    return Cell(architecture, "peft", name, "golden", note=note)


def make_peft(architecture: str) -> None:
    """The PEFT half of the matrix for one architecture."""
    folder = emptied(MATRIX / architecture / "peft")
    goldens = Goldens(architecture, VERSIONS, {})
    base = load(folder.parent / "model", None)
    note = add_cases(goldens, base, None, [])
    cells = [Cell(architecture, "peft", "base", "golden", note=note)]
    for name, method in methods_of(architecture, base.config.num_hidden_layers).items():
        cells.append(make_cell(goldens, name, method, folder))
        print(f"{architecture} {name}: {cells[-1].status} {cells[-1].reason} {cells[-1].note}")
    goldens.write(folder)
    write_cells("peft", cells)


def main() -> None:
    """Parses the command line and makes what it names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["models", "peft"])
    parser.add_argument("architectures", nargs="*", default=list(MATRIX_MODELS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    for architecture in arguments.architectures:
        if arguments.command == "models":
            write_model(architecture, emptied(MATRIX / architecture / "model"))
        else:
            make_peft(architecture)


if __name__ == "__main__":
    main()
