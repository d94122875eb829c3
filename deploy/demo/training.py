"""What the demo's training scripts share: data, loss, schedule and the evaluation of answers.

Needs torch and transformers only, so that it runs in both environments of tests/golden.
"""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from make_data import QUESTIONS_DIR, Example, training_examples
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    StoppingCriteria,
    StoppingCriteriaList,
)

HERE = Path(__file__).resolve().parent
ADAPTERS_DIR = HERE / "adapters"
RESULTS_FILE = HERE / "results.json"
BASE_MODEL_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
WARMUP_STEPS = 10
MAX_NEW_TOKENS = 48
SEED = 7

# Last hidden states [batch, length, hidden] of ids [batch, length].
HiddenOf = Callable[[torch.Tensor], torch.Tensor]


def load_base(folder: Path) -> transformers.PreTrainedModel:
    """The frozen base model in fp32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.name_or_path = BASE_MODEL_NAME
    return model.eval()


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


def learning_rate_factor(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to zero."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (steps - WARMUP_STEPS)))


def fit(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    head: torch.nn.Module,
    hidden_of: HiddenOf,
    trained: list[torch.nn.Parameter],
    steps: int,
    batch_size: int,
    learning_rate: float,
) -> None:
    """Trains parameters on the mean cross-entropy of the answer tokens.

    Runs the output head on the answers' positions only.
    """
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.0)
    examples = training_examples(task, steps * batch_size)
    random.Random(SEED).shuffle(examples)
    pairs = [encode(tokenizer, example) for example in examples]
    start = time.monotonic()
    for step in range(steps):
        ids, labels = make_batch(pairs[step * batch_size : (step + 1) * batch_size])
        wanted = labels != -100
        logits = head(hidden_of(ids)[wanted])
        loss = torch.nn.functional.cross_entropy(logits, labels[wanted])
        loss.backward()
        factor = learning_rate_factor(step, steps)
        optimizer.param_groups[0]["lr"] = learning_rate * factor
        optimizer.step()
        optimizer.zero_grad()
        if step % 10 == 0 or step == steps - 1:
            seconds = time.monotonic() - start
            print(f"{task} step={step} loss={loss.item():.4f} seconds={seconds:.0f}", flush=True)


def newline_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of all tokens whose text contains a newline."""
    return [i for i in range(len(tokenizer)) if "\n" in tokenizer.decode([i])]


class Departed(StoppingCriteria):
    """Ends a generation that can no longer be the expected answer."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, prompt_length: int, expected: str
    ) -> None:
        self.tokenizer, self.prompt_length, self.expected = tokenizer, prompt_length, expected

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        """Whether the text so far is no beginning of the answer."""
        text = self.tokenizer.decode(input_ids[0, self.prompt_length :]).split("\n")[0].strip()
        return torch.tensor([not self.expected.startswith(text)])


def generated(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    question: Example,
    stop_ids: list[int],
    use_cache: bool = True,
    only_if_right: bool = False,
) -> list[int]:
    """The ids of the greedy answer, up to EOS or the first newline.

    `only_if_right` ends the generation where it departs from the expected answer.
    """
    inputs = torch.tensor([tokenizer(question.prompt)["input_ids"]])
    length = inputs.shape[1]
    criteria = [Departed(tokenizer, length, question.expected)] if only_if_right else []
    with torch.inference_mode():
        output = model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            eos_token_id=stop_ids,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=use_cache,
            stopping_criteria=StoppingCriteriaList(criteria),
        )
    return output[0, length:].tolist()


def confirmed(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, question: Example
) -> list[int] | None:
    """The expected answer's ids if greedy decoding would give them, shown by one forward pass."""
    prompt, answer = encode(tokenizer, question)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + answer]), use_cache=False).logits[0]
    chosen = logits[len(prompt) - 1 : len(prompt) + len(answer) - 1].argmax(dim=-1).tolist()
    return answer if chosen == answer else None


def text_of(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """The stripped first line of an answer."""
    return tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0].strip()


def read_questions(task: str) -> list[Example]:
    """The held-back questions of a task."""
    lines = (QUESTIONS_DIR / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
    return [Example(**json.loads(line)) for line in lines]


def evaluate_task(
    task: str,
    model_dir: Path,
    with_adapter: Callable[[torch.nn.Module], torch.nn.Module],
    use_cache: bool = True,
) -> dict:
    """Accuracy and answers of one adapter, one question at a time, and the base's accuracy.

    Without a KV cache a step costs as much as the whole answer: there the expected answer is
    confirmed in one pass, and generated only where it is not what the model says.
    """
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    stop_ids = [tokenizer.eos_token_id, *newline_ids(tokenizer)]
    base = load_base(model_dir)
    asked = read_questions(task)
    base_answers = (generated(base, tokenizer, q, stop_ids, only_if_right=True) for q in asked)
    base_right = sum(
        text_of(tokenizer, ids) == q.expected for q, ids in zip(asked, base_answers, strict=True)
    )
    model = with_adapter(base).eval()
    answers = []
    for question in asked:
        ids = None if use_cache else confirmed(model, tokenizer, question)
        ids = ids or generated(model, tokenizer, question, stop_ids, use_cache)
        answers.append({**asdict(question), "answer": text_of(tokenizer, ids), "tokens": ids})
    right = sum(answer["answer"] == answer["expected"] for answer in answers)
    print(f"{task} adapter={right}/{len(asked)} base={base_right}/{len(asked)}", flush=True)
    return {
        "questions": len(asked),
        "adapter_accuracy": right / len(asked),
        "base_accuracy": base_right / len(asked),
        "answers": answers,
    }


def write_results(library: str, tasks: dict[str, dict]) -> None:
    """Replaces the results of some tasks in results.json; `library` is name and version."""
    versions = {
        "library": library,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    kept = json.loads(RESULTS_FILE.read_text())["tasks"] if RESULTS_FILE.exists() else {}
    merged = kept | {task: {**versions, **result} for task, result in tasks.items()}
    results = {
        "base_model": BASE_MODEL_NAME,
        "dtype": "float32",
        "max_new_tokens": MAX_NEW_TOKENS,
        "stop": "EOS or the first newline",
        "tasks": dict(sorted(merged.items())),
    }
    RESULTS_FILE.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
