"""transformers + PEFT: the better of one mixed batch and one batch an adapter."""
from pathlib import Path

from cells import Outcome
from peer import Unsupported, WorkerPeer

SCRIPT = Path(__file__).with_name("peft_worker.py")


class PeftPeer(WorkerPeer):
    def __init__(self, work: Path, threads: int, python: Path, way: str):
        super().__init__(work, threads, python, SCRIPT)
        self.name = {"mixed": "PEFT, mixed batch", "grouped": "PEFT, adapter by adapter"}[way]
        self._way = way

    def flags(self) -> str:
        return f"generate(do_sample=False), adapters in the model's dtype, torch threads {self.threads}"

    def check(self, cell):
        if self._way == "grouped" and cell.adapters < 2:
            raise Unsupported("the same as one batch")

    def start(self, files, num_adapters: int):
        self.load(files, num_adapters, {"OMP_NUM_THREADS": str(self.threads)}, {"threads": self.threads})

    def run(self, requests: list, concurrency: int) -> Outcome:
        return self.ask(requests, concurrency, [request.prompt for request in requests], {"way": self._way})
