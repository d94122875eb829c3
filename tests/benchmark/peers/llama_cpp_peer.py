"""llama.cpp's llama-server, built from the source distribution on PyPI."""
import subprocess
from pathlib import Path

from cells import Outcome
from peer import Peer, Process, free_port, http_ready, run_http


class LlamaCppPeer(Peer):
    name = "llama.cpp"

    def __init__(self, work: Path, threads: int, binary: Path):
        super().__init__(work, threads)
        self._binary = binary
        self._process = None
        self._num_adapters = 0

    def version(self) -> str:
        run = subprocess.run([self._binary, "--version"], capture_output=True, text=True, check=True)
        return "llama-server " + " ".join((run.stderr + run.stdout).split("version: ")[-1].split()[:3])

    def _options(self, slots: int = 32) -> list:
        # Slots share one cache; a slot's context is the whole divided by their number.
        return ["--threads", self.threads, "--threads-batch", self.threads, "--parallel", slots, "--ctx-size", slots * 1024,
                "--batch-size", 2048, "--ubatch-size", 512, "--cont-batching", "--flash-attn", "on", "--no-webui",
                "--cache-ram", 0, "--threads-http", 2]

    def flags(self) -> str:
        return "llama-server " + " ".join(str(option) for option in self._options())

    def start(self, files, num_adapters: int):
        self._num_adapters = num_adapters
        self._port = free_port()
        adapters = [option for file in files.gguf_adapters[:num_adapters] for option in ("--lora", file)]
        kv = {"bf16": "bf16", "fp32": "f32"}[files.dtype]
        self._process = Process(
            [self._binary, "--model", files.gguf, "--host", "127.0.0.1", "--port", self._port, "--cache-type-k", kv,
             "--cache-type-v", kv, *self._options(), *adapters], self.work / "llama.log")
        self._process.wait_until(http_ready(self._port, "/health"))

    def _scales(self, adapter: int | None) -> list:
        """All loaded adapters apply at scale 1 to a request that does not say otherwise, so every one is named."""
        return [{"id": index, "scale": 1.0 if index == adapter else 0.0} for index in range(self._num_adapters)]

    def run(self, requests: list) -> Outcome:
        bodies = [{"prompt": request.prompt, "n_predict": request.output_tokens, "temperature": 0, "ignore_eos": True,
                   "stream": True, "return_tokens": True, "cache_prompt": False, "lora": self._scales(request.adapter)}
                  for request in requests]
        outcome = run_http(self._port, "/completion", bodies, lambda event: len(event.get("tokens", [])) if not event.get("stop") else 0)
        expected = sum(request.output_tokens for request in requests)
        # The last token may ride in the event that ends a stream, which carries no list of its own.
        if not expected - len(requests) <= outcome.num_tokens <= expected:
            raise RuntimeError(f"{outcome.num_tokens} tokens instead of {expected}")
        outcome.num_tokens = expected
        return outcome

    def stop(self):
        if self._process is not None:
            self._process.stop()
            self._process = None
