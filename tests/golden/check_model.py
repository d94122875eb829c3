#!/usr/bin/env python3
"""Compares the folder that convert_model.py makes with what transformers reads from the same GGUF.

    python tests/golden/check_model.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf --model smollm2

Checks, in this order: every weight equals transformers' dequantized weight rounded to bfloat16;
the logits of both are equal; the token ids of 200 strings are equal; the model answers a question.
"""

import argparse
import sys
from pathlib import Path

import torch
from texts import tokenizer_texts
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPT = "The server keeps one frozen base model and adds 12 small adapters to it."
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
NUM_TEXTS = 200


def check_weights(model: torch.nn.Module, reference: torch.nn.Module) -> None:
    """Weights are the reference's rounded once; rounds the reference in place for what follows."""
    ours, theirs = model.state_dict(), reference.state_dict()
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    for name, weight in theirs.items():
        weight.copy_(weight.to(torch.bfloat16).to(torch.float32))
        assert torch.equal(ours[name], weight), f"{name} differs"
    print(f"weights: {len(ours)} tensors equal")


def logits_of(model: torch.nn.Module, ids: list[int]) -> torch.Tensor:
    """Logits [num_tokens, vocab] of one prompt."""
    with torch.inference_mode():
        return model(torch.tensor([ids])).logits[0]


def check_tokenizer(tokenizer, reference) -> None:
    """Ids equal the reference's, once that splits digits.

    transformers knows no pre-tokenizer by the name `smollm` and falls back to GPT-2's, which cuts
    the last of several spaces before a digit. The digit splitter is put before it here.
    """
    backend = reference.backend_tokenizer
    texts = tokenizer_texts(NUM_TEXTS)
    plain = [backend.encode(text).ids for text in texts]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
    )
    changed = 0
    for text, plain_ids in zip(texts, plain, strict=True):
        ids = tokenizer(text)["input_ids"]
        assert ids == backend.encode(text).ids, f"ids of {text!r} differ"
        assert tokenizer.decode(ids) == backend.decode(ids, skip_special_tokens=False), text
        changed += ids != plain_ids
    print(f"tokenizer: {len(texts)} texts equal, {changed} of them only because digits are split")


def answer(model: torch.nn.Module, tokenizer, question: str) -> str:
    """The model's greedy answer to one question in its chat format."""
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt"
    )
    with torch.inference_mode():
        output = model.generate(**inputs, max_new_tokens=32, do_sample=False)
    return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> int:
    """Runs all checks; an assertion names the first difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    folder, name = str(arguments.gguf.parent), arguments.gguf.name

    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    reference = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    reference.eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    ids = tokenizer(PROMPT)["input_ids"]
    unrounded = logits_of(reference, ids)
    check_weights(model, reference)
    logits = logits_of(model, ids)
    assert torch.equal(logits, logits_of(reference, ids)), "logits differ"
    rounding = (logits - unrounded).abs().max().item()
    print(f"logits: equal; rounding weights to bfloat16 moved them by at most {rounding:.3f}")

    check_tokenizer(tokenizer, AutoTokenizer.from_pretrained(folder, gguf_file=name))
    text = answer(model, tokenizer, QUESTION)
    assert text == ANSWER, text
    print(f"answer: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
