"""mistral.rs, through its Python package: one engine, a thread a request."""
from pathlib import Path

from cells import Outcome
from peer import Peer, Worker

SCRIPT = Path(__file__).with_name("mistralrs_worker.py")
MAX_SEQUENCES = 32


class MistralRsPeer(Peer):
    name = "mistral.rs"

    def __init__(self, work: Path, threads: int, python: Path):
        super().__init__(work, threads)
        self._python = python
        self._worker = None
        self._version = None

    def version(self) -> str:
        return self._version or "not started"

    def flags(self) -> str:
        return f"Runner(max_seqs={MAX_SEQUENCES}, prefix_cache_n=0), RAYON_NUM_THREADS={self.threads}; prompts as text of as many tokens"

    def start(self, files, num_adapters: int):
        self._worker = Worker(self._python, SCRIPT, self.work, {"RAYON_NUM_THREADS": str(self.threads)})
        self._version = self._worker.ask({
            "model": str(files.folder), "dtype": files.dtype, "work": str(self.work), "max_sequences": MAX_SEQUENCES,
            "adapters": [str(folder) for folder in files.adapters[:num_adapters]]})["version"]

    def run(self, requests: list, concurrency: int) -> Outcome:
        answer = self._worker.ask({
            "concurrency": concurrency, "prompts": [request.text() for request in requests],
            "adapters": [request.adapter for request in requests], "output_tokens": requests[0].output_tokens})
        return Outcome(answer["wall_s"], answer["sent_s"], answer["token_s"])

    def stop(self):
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
