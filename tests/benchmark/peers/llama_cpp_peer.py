"""llama.cpp's llama-server, built from the source distribution on PyPI."""
import subprocess
from pathlib import Path

from cells import Outcome
from http_streams import run_streams
from peer import Peer, Process, free_port, get_json, http_ready


def token_times(events: list) -> list:
    """By the running count: a token that ends within a character has no event of its own."""
    times = []
    for when, event in events:
        if "error" in event:
            raise RuntimeError(f"llama-server: {event['error']}")
        times += [when] * (event["tokens_predicted"] - len(times))
    return times


class LlamaCppPeer(Peer):
    name = "llama.cpp"

    def __init__(self, work: Path, threads: int, binary: Path):
        super().__init__(work, threads)
        self._binary = binary
        self._process = None
        self._num_adapters = 0

    def version(self) -> str:
        run = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=True)
        return "llama-server " + " ".join((run.stderr + run.stdout).split("version: ")[-1].split("(")[0].split())

    def _options(self, slots: int = 32) -> list:
        # A slot has 1024 tokens of a cache of its own: with one cache for all, each token's attention passes over everybody's keys.
        # A request that streams holds one HTTP thread.
        return ["--threads", self.threads, "--threads-batch", self.threads, "--parallel", slots, "--ctx-size", slots * 1024,
                "--no-kv-unified", "--batch-size", 2048, "--ubatch-size", 512, "--cont-batching", "--flash-attn", "on", "--no-ui",
                "--cache-ram", 0, "--threads-http", slots + 8]

    def flags(self) -> str:
        return "llama-server " + " ".join(str(option) for option in self._options())

    def start(self, files, num_adapters: int):
        self._num_adapters = num_adapters
        self._port = free_port()
        # Of several --lora only the last would hold.
        adapters = ["--lora", ",".join(str(file) for file in files.gguf_adapters[:num_adapters])] if num_adapters else []
        kv = {"bf16": "bf16", "fp32": "f32"}[files.dtype]
        self._process = Process(
            [self._binary, "--model", files.gguf, "--host", "127.0.0.1", "--port", self._port, "--cache-type-k", kv,
             "--cache-type-v", kv, *self._options(), *adapters], self.work / "llama.log")
        self._process.wait_until(http_ready(self._port, "/health"))
        loaded = get_json(self._port, "/lora-adapters")
        if len(loaded) != num_adapters:
            raise RuntimeError(f"llama-server loaded {len(loaded)} adapters instead of {num_adapters}")

    def _scales(self, adapter: int | None) -> list:
        """All loaded adapters apply at scale 1 to a request that does not say otherwise, so every one is named."""
        return [{"id": index, "scale": 1.0 if index == adapter else 0.0} for index in range(self._num_adapters)]

    def run(self, requests: list, concurrency: int) -> Outcome:
        bodies = [{"prompt": request.prompt, "n_predict": request.output_tokens, "temperature": 0, "ignore_eos": True,
                   "stream": True, "cache_prompt": False, "lora": self._scales(request.adapter)}
                  for request in requests]
        return run_streams(self._port, "/completion", bodies, concurrency, token_times)

    def stop(self):
        if self._process is not None:
            self._process.stop()
            self._process = None
