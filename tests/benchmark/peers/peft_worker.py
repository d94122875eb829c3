"""The process of peft_peer.py: JSON lines on standard input and output. Runs in the reference environment."""
import json
import sys
import time

import peft
import torch
import transformers

BASE = "__base__"  # PEFT's name for rows without an adapter


class FirstTokenClock(transformers.StoppingCriteria):
    """Never stops anything; notes when the first token of a batch was there."""

    def __init__(self):
        self.first_s = None

    def __call__(self, input_ids, scores, **kwargs):
        if self.first_s is None:
            self.first_s = time.perf_counter()
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


def generate(model, prompts: list, adapters: list, output_tokens: int) -> tuple:
    """(tokens, time of the first one)."""
    ids = torch.tensor(prompts)
    clock = FirstTokenClock()
    names = {"adapter_names": adapters} if isinstance(model, peft.PeftModel) else {}
    with torch.inference_mode():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, min_new_tokens=output_tokens,
            max_new_tokens=output_tokens, pad_token_id=0, stopping_criteria=transformers.StoppingCriteriaList([clock]), **names)
    return out[:, ids.shape[1]:], clock.first_s


def run(model, request: dict) -> dict:
    names = [BASE if adapter is None else str(adapter) for adapter in request["adapters"]]
    groups = {}
    for index, name in enumerate(names):
        groups.setdefault("" if request["way"] == "mixed" else name, []).append(index)
    first_token_s = [0.0] * len(names)
    num_tokens = 0
    begin = time.perf_counter()
    for indices in groups.values():
        tokens, first = generate(model, [request["prompts"][i] for i in indices], [names[i] for i in indices],
                                 request["output_tokens"])
        num_tokens += tokens.numel()
        for index in indices:
            first_token_s[index] = first - begin
    return {"wall_s": time.perf_counter() - begin, "first_token_s": first_token_s, "num_tokens": num_tokens}


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
