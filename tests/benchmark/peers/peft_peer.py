"""transformers + PEFT: the better of one mixed batch and one batch an adapter."""
from pathlib import Path

from cells import Outcome
from peer import Peer, Unsupported, Worker

SCRIPT = Path(__file__).with_name("peft_worker.py")


class PeftPeer(Peer):
    def __init__(self, work: Path, threads: int, python: Path, way: str):
        super().__init__(work, threads)
        self.name = {"mixed": "PEFT, mixed batch", "grouped": "PEFT, adapter by adapter"}[way]
        self._way = way
        self._python = python
        self._worker = None
        self._version = None

    def version(self) -> str:
        return self._version or "not started"

    def flags(self) -> str:
        return f"generate(do_sample=False), adapters in the model's dtype, torch threads {self.threads}"

    def check(self, cell):
        if self._way == "grouped" and cell.adapters < 2:
            raise Unsupported("the same as one batch")

    def start(self, files, num_adapters: int):
        self._worker = Worker(self._python, SCRIPT, self.work, {"OMP_NUM_THREADS": str(self.threads)})
        self._version = self._worker.ask({
            "model": str(files.folder), "dtype": files.dtype, "threads": self.threads,
            "adapters": [str(folder) for folder in files.adapters[:num_adapters]]})["version"]

    def run(self, requests: list, concurrency: int) -> Outcome:
        answer = self._worker.ask({
            "way": self._way, "concurrency": concurrency, "prompts": [request.prompt for request in requests],
            "adapters": [request.adapter for request in requests], "output_tokens": requests[0].output_tokens})
        return Outcome(answer["wall_s"], answer["sent_s"], answer["token_s"])

    def stop(self):
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
