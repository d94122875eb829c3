"""The process of peft_peer.py: JSON lines on standard input and output. Runs in the reference environment."""
import json
import sys
import time

import peft
import torch
import transformers

BASE = "__base__"  # PEFT's name for rows without an adapter


class TokenClock(transformers.StoppingCriteria):
    """Never stops anything; notes when each token of a batch was there."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores, **kwargs):
        self.times.append(time.perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def load(setup: dict):
    torch.set_num_threads(setup["threads"])
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[setup["dtype"]]
    model = transformers.AutoModelForCausalLM.from_pretrained(setup["model"], dtype=dtype)
    for index, folder in enumerate(setup["adapters"]):
        if index == 0:
            model = peft.PeftModel.from_pretrained(model, folder, adapter_name="0", autocast_adapter_dtype=False)
        else:
            model.load_adapter(folder, adapter_name=str(index), autocast_adapter_dtype=False)
    return model.to(dtype).eval()


def generate(model, prompts: list, adapters: list, output_tokens: int) -> list:
    """When each token of the batch was there."""
    ids = torch.tensor(prompts)
    clock = TokenClock()
    names = {"adapter_names": adapters} if isinstance(model, peft.PeftModel) else {}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=output_tokens,
            max_new_tokens=output_tokens, pad_token_id=0, stopping_criteria=transformers.StoppingCriteriaList([clock]), **names)
    if out.shape[1] - ids.shape[1] != len(clock.times):
        raise RuntimeError(f"{out.shape[1] - ids.shape[1]} tokens in {len(clock.times)} steps")
    return clock.times


def batches(names: list, indices: range, way: str) -> list:
    """Which of the requests at `indices` run together: all, or one adapter at a time when the way says so."""
    groups = {}
    for index in indices:
        groups.setdefault("" if way == "mixed" else names[index], []).append(index)
    return list(groups.values())


def run(model, request: dict) -> dict:
    names = [BASE if adapter is None else str(adapter) for adapter in request["adapters"]]
    token_s, sent_s = [[] for _ in names], [0.0] * len(names)
    begin = time.perf_counter()
    for first in range(0, len(names), request["concurrency"]):
        together = range(first, min(first + request["concurrency"], len(names)))
        sent = time.perf_counter() - begin  # all of them; those of a later batch wait for the one before
        for indices in batches(names, together, request["way"]):
            times = generate(model, [request["prompts"][i] for i in indices], [names[i] for i in indices], request["output_tokens"])
            for index in indices:
                token_s[index], sent_s[index] = [now - begin for now in times], sent
    return {"wall_s": time.perf_counter() - begin, "sent_s": sent_s, "token_s": token_s}


def main():
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print to standard output
    model = None
    for line in sys.stdin:
        request = json.loads(line)
        if model is None:
            model = load(request)
            answer = {"version": f"transformers {transformers.__version__}, peft {peft.__version__}, torch {torch.__version__}"}
        else:
            answer = run(model, request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
