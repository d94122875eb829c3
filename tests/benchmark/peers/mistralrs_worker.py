"""The process of mistralrs_peer.py: JSON lines on standard input and output. Runs in the environment that has mistralrs."""
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from mistralrs import Architecture, ChatCompletionRequest, LoraAdapter, ModelDType, Runner, Which

DTYPES = {"bf16": ModelDType.BF16, "fp32": ModelDType.F32}


def load(setup: dict) -> Runner:
    model = {"model_id": setup["model"], "arch": Architecture.Llama, "dtype": DTYPES[setup["dtype"]]}
    adapters = [LoraAdapter(alias=str(index), source=folder) for index, folder in enumerate(setup["adapters"])]
    which = Which.Lora(**model, adapters=adapters, max_adapters=len(adapters), max_rank=16) if adapters else Which.Plain(**model)
    template = Path(setup["work"]) / "plain.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    return Runner(which, max_seqs=setup["max_sequences"], prefix_cache_n=0, jinja_explicit=str(template))


class Client:
    def __init__(self, runner: Runner):
        self._runner = runner
        self._sending = threading.Lock()  # the runner refuses a call while another one is under way

    def generate(self, prompt: str, adapter: int | None, output_tokens: int, begin: float) -> tuple:
        """(when it was sent, when each of its tokens came)."""
        selected = {} if adapter is None else {"adapter": str(adapter)}
        request = ChatCompletionRequest(
            messages=[{"role": "user", "content": prompt}], model="default", max_tokens=output_tokens, temperature=0.0, stream=True,
            ignore_eos=True, **selected)
        sent = time.perf_counter() - begin
        with self._sending:
            stream = self._runner.send_chat_completion_request(request)
        times, usage = [], None
        for chunk in stream:
            times.append(time.perf_counter() - begin)
            usage = chunk.usage or usage
        if usage is None or usage.prompt_tokens != len(prompt):
            raise RuntimeError(f"{usage.prompt_tokens if usage else 'no'} prompt tokens instead of {len(prompt)}")
        # A token that ends within a character has no chunk of its own: it came with the next one at the latest.
        return sent, times[:usage.completion_tokens] + [times[-1]] * (usage.completion_tokens - len(times))


def run(client: Client, request: dict) -> dict:
    begin = time.perf_counter()
    with ThreadPoolExecutor(request["concurrency"]) as pool:
        answers = list(pool.map(lambda prompt, adapter: client.generate(prompt, adapter, request["output_tokens"], begin),
                                request["prompts"], request["adapters"]))
    sent_s, token_s = zip(*answers)
    return {"wall_s": time.perf_counter() - begin, "sent_s": sent_s, "token_s": token_s}


def main():
    # The library prints to the file descriptor of standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    client = None
    for line in sys.stdin:
        request = json.loads(line)
        if client is None:
            client = Client(load(request))
            answer = {"version": f"mistralrs {version('mistralrs')}"}
        else:
            answer = run(client, request)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
