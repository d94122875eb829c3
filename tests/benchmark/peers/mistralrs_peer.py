"""mistral.rs, through its Python package: one engine, a thread a request."""
from pathlib import Path

from cells import Outcome
from peer import WorkerPeer

SCRIPT = Path(__file__).with_name("mistralrs_worker.py")
MAX_SEQUENCES = 32


class MistralRsPeer(WorkerPeer):
    name = "mistral.rs"

    def __init__(self, work: Path, threads: int, python: Path):
        super().__init__(work, threads, python, SCRIPT)

    def flags(self) -> str:
        return f"Runner(max_seqs={MAX_SEQUENCES}, prefix_cache_n=0), RAYON_NUM_THREADS={self.threads}; prompts as text of as many tokens"

    def start(self, files, num_adapters: int):
        self.load(files, num_adapters, {"RAYON_NUM_THREADS": str(self.threads)}, {"work": str(self.work), "max_sequences": MAX_SEQUENCES})

    def run(self, requests: list, concurrency: int) -> Outcome:
        return self.ask(requests, concurrency, [request.text() for request in requests], {})
