#!/usr/bin/env python3
"""Trains the demo adapters with PEFT on the CPU and measures what PEFT itself answers with them.

    python deploy/demo/train.py --model smollm2 train [TASK ...]
    python deploy/demo/train.py --model smollm2 evaluate

`train` writes adapters/<task>/ as PEFT saves it; `evaluate` reads these folders back and writes
results.json. The adapters differ in rank, targets, scaling and dtype on purpose, so that a batch
that mixes them is a heterogeneous one.
"""

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import peft
import torch
import transformers
from make_data import QUESTIONS_DIR, TASKS, Example, training_examples
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent
ADAPTERS_DIR = HERE / "adapters"
RESULTS_FILE = HERE / "results.json"
BASE_MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
BATCH_SIZE = 16
WARMUP_STEPS = 10
MAX_NEW_TOKENS = 48
SEED = 7


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained and saved."""

    lora: dict
    steps: int
    learning_rate: float
    saved_dtype: torch.dtype


RECIPES = {
    "ticket-router": Recipe(
        {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        steps=120,
        learning_rate=2e-3,
        saved_dtype=torch.float32,
    ),
    "json-extract": Recipe(
        {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        steps=120,
        learning_rate=2e-3,
        saved_dtype=torch.bfloat16,
    ),
    "date-normalize": Recipe(
        {
            "r": 8,
            "lora_alpha": 8,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
            "use_rslora": True,
        },
        steps=200,
        learning_rate=2e-3,
        saved_dtype=torch.bfloat16,
    ),
    "pirate-tone": Recipe(
        {"r": 16, "lora_alpha": 16, "target_modules": ["v_proj", "down_proj"]},
        steps=120,
        learning_rate=1e-3,
        saved_dtype=torch.float16,
    ),
}


def encode(tokenizer: PreTrainedTokenizerBase, example: Example) -> tuple[list[int], list[int]]:
    """Token ids of the prompt and of the answer, which starts with a space and ends with EOS."""
    prompt = tokenizer(example.prompt)["input_ids"]
    answer = tokenizer(f" {example.expected}")["input_ids"]
    assert tokenizer(f"{example.prompt} {example.expected}")["input_ids"] == prompt + answer
    return prompt, answer + [tokenizer.eos_token_id]


def make_batch(pairs: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels, both [batch, length] int64, padded on the right.

    labels[b, t] is the id that follows position t where that id is part of the answer, else -100.
    Padding needs no mask: attention is causal and padded positions carry no label.
    """
    length = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids = torch.zeros(len(pairs), length, dtype=torch.int64)
    labels = torch.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(pairs):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = torch.tensor(answer)
    return ids, labels


def answer_loss(model: PeftModel, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of the answer tokens; runs the output head on their positions only."""
    base = model.get_base_model()
    hidden = base.model(input_ids=ids, use_cache=False).last_hidden_state
    wanted = labels != -100
    return torch.nn.functional.cross_entropy(base.lm_head(hidden[wanted]), labels[wanted])


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


def load_base(folder: Path) -> transformers.PreTrainedModel:
    """The frozen base model in fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.name_or_path = BASE_MODEL_NAME
    return model.eval()


def train(model_dir: Path, task: str) -> None:
    """Trains one adapter and saves it."""
    recipe = RECIPES[task]
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    config = LoraConfig(task_type="CAUSAL_LM", **recipe.lora)
    model = get_peft_model(load_base(model_dir), config)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)

    examples = training_examples(task, recipe.steps * BATCH_SIZE)
    random.Random(SEED).shuffle(examples)
    pairs = [encode(tokenizer, example) for example in examples]
    start = time.monotonic()
    for step in range(recipe.steps):
        batch = make_batch(pairs[step * BATCH_SIZE : (step + 1) * BATCH_SIZE])
        loss = answer_loss(model, *batch)
        loss.backward()
        factor = learning_rate_factor(step, recipe.steps)
        optimizer.param_groups[0]["lr"] = recipe.learning_rate * factor
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == recipe.steps - 1:
            seconds = time.monotonic() - start
            print(f"{task} step={step} loss={loss.item():.4f} seconds={seconds:.0f}", flush=True)

    with torch.no_grad():
        for parameter in trained:
            parameter.data = parameter.data.to(recipe.saved_dtype)
    folder = ADAPTERS_DIR / task
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()  # PEFT's empty model card


def newline_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all tokens whose text contains a newline."""
    return [i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])]


def greedy(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: str, stop_ids: list[int]
) -> tuple[str, list[int]]:
    """The greedy answer up to EOS or the first newline: stripped text, and all generated ids."""
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        output = model.generate(
            **inputs,
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=stop_ids,
            pad_token_id=tokenizer.pad_token_id,
        )
    ids = output[0, inputs["input_ids"].shape[1] :].tolist()
    return tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0].strip(), ids


def read_questions(task: str) -> list[Example]:
    """The held-back questions of a task."""
    lines = (QUESTIONS_DIR / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(**json.loads(line)) for line in lines]


def evaluate_task(model_dir: Path, tokenizer: PreTrainedTokenizerBase, task: str) -> dict:
    """Accuracy and answers of one adapter, one question at a time, and the base's accuracy."""
    stop_ids = [tokenizer.eos_token_id, *newline_ids(tokenizer)]
    base = load_base(model_dir)
    asked = read_questions(task)
    base_right = sum(greedy(base, tokenizer, q.prompt, stop_ids)[0] == q.expected for q in asked)
    model = PeftModel.from_pretrained(base, ADAPTERS_DIR / task).eval()
    answers = []
    for question in asked:
        text, ids = greedy(model, tokenizer, question.prompt, stop_ids)
        answers.append({**asdict(question), "answer": text, "tokens": ids})
    right = sum(answer["answer"] == answer["expected"] for answer in answers)
    print(f"{task} adapter={right}/{len(asked)} base={base_right}/{len(asked)}", flush=True)
    return {
        "questions": len(asked),
        "adapter_accuracy": right / len(asked),
        "base_accuracy": base_right / len(asked),
        "answers": answers,
    }


def evaluate(model_dir: Path) -> None:
    """Evaluates all adapters and writes results.json."""
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    results = {
        "base_model": BASE_MODEL_NAME,
        "dtype": "float32",
        "max_new_tokens": MAX_NEW_TOKENS,
        "stop": "EOS or the first newline",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "tasks": {task: evaluate_task(model_dir, tokenizer, task) for task in TASKS},
    }
    RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and runs one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the base model")
    commands = parser.add_subparsers(dest="command", required=True)
    training = commands.add_parser("train", help="train and save adapters")
    training.add_argument("tasks", nargs="*", default=list(TASKS), metavar="TASK")
    commands.add_parser("evaluate", help="measure the saved adapters and write results.json")
    arguments = parser.parse_args()
    if arguments.command == "evaluate":
        evaluate(arguments.model)
        return
    for task in arguments.tasks:
        train(arguments.model, task)


if __name__ == "__main__":
    main()
