"""Tenon: the real binary over real gRPC, driven by serving_benchmark."""
import json
import subprocess
from pathlib import Path

from cells import Outcome
from peer import Peer, Process, Unsupported

BIN = Path(__file__).resolve().parents[3] / "build/release/bin"


class TenonPeer(Peer):
    name = "tenon"

    def __init__(self, work: Path, threads: int, extra_flags: tuple = (), store: Path | None = None, as_text: bool = False):
        """`store`: a folder of adapters that are there already; `as_text`: prompts are sent as text, which the server tokenizes."""
        super().__init__(work, threads)
        self._extra_flags = extra_flags
        self._store = store or work / "store"
        self._keeps_store = store is not None
        self._as_text = as_text
        self._process = None

    def version(self) -> str:
        return subprocess.run([BIN / "tenon-server", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]

    def _options(self) -> list:
        return [f"--threads={self.threads}", "--kv-cache-bytes=2147483648", "--adapter-host-bytes=2147483648", *self._extra_flags]

    def flags(self) -> str:
        return "tenon-server " + " ".join(self._options())

    def _check_flags(self):
        """Raises Unsupported for a flag that this build of the server does not have."""
        usage = subprocess.run([BIN / "tenon-server", "--helpfull"], capture_output=True, text=True).stdout
        for flag in self._extra_flags:
            name = flag.removeprefix("--").split("=")[0]
            if f"--{name.replace('-', '_')} " not in usage and f"--{name} " not in usage:
                raise Unsupported(f"this server has no flag --{name}")

    def start(self, files, num_adapters: int):
        self._check_flags()
        self._address = f"unix:{self.work}/tenon.sock"
        log = self.work / "tenon.log"
        self._process = Process(
            [BIN / "tenon-server", f"--model={files.folder}", f"--dtype={files.dtype}", f"--store={self._store}",
             f"--listen={self._address}", "--http-listen=127.0.0.1:0", *self._options()], log)
        self._process.wait_until(lambda: b" ready: " in log.read_bytes())
        if self._keeps_store:
            self._fill_store(files, num_adapters)
        else:
            for index in range(num_adapters):
                self._upload(f"adapter-{index}", files.adapters[index])

    def _fill_store(self, files, num_adapters: int):
        """Uploads those that a call before has not, made one at a time: thousands of them need not be kept twice."""
        counter = self._store.with_name(self._store.name + ".count")
        there = int(counter.read_text()) if counter.exists() else 0
        for index in range(there, num_adapters):
            folder = self.work / "adapter"
            from model_files import write_adapter  # here: what reads results does without its packages

            write_adapter(folder, files.shape, files.dtype, index)
            self._upload(f"adapter-{index}", folder)
            counter.write_text(str(index + 1))

    def _upload(self, name: str, folder: Path):
        subprocess.run([BIN / "tenonctl", f"--server={self._address}", "adapters", "upload", name, folder], check=True,
                       stdout=subprocess.DEVNULL)

    def run(self, requests: list, concurrency: int) -> Outcome:
        path, report = self.work / "requests.jsonl", self.work / "report.json"
        path.write_text("".join(
            json.dumps({**({"prompt": request.text()} if self._as_text else {"prompt_tokens": request.prompt}),
                        "adapter": "" if request.adapter is None else f"adapter-{request.adapter}",
                        "output_tokens": request.output_tokens, "arrival_s": request.arrival_s}) + "\n" for request in requests))
        run = subprocess.run([BIN / "serving_benchmark", f"--server={self._address}", f"--requests_file={path}",
                              f"--concurrency={concurrency}", f"--json={report}", "--token_times"], stdout=subprocess.PIPE,
                             stderr=subprocess.STDOUT, text=True)
        if run.returncode:
            raise RuntimeError(f"serving_benchmark: {run.stdout.strip()[-500:]}")
        result = json.loads(report.read_text())
        return Outcome(result["wall_s"], result["sent_s"], result["token_s"])

    def stop(self):
        if self._process is not None:
            self._process.stop()
            self._process = None
