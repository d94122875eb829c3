"""Tenon: the real binary over real gRPC, driven by serving_benchmark."""
import json
import subprocess
from pathlib import Path

from cells import Outcome
from peer import Peer, Process

BIN = Path(__file__).resolve().parents[3] / "build/release/bin"


class TenonPeer(Peer):
    name = "tenon"

    def __init__(self, work: Path, threads: int, extra_flags: tuple = ()):
        super().__init__(work, threads)
        self._extra_flags = extra_flags
        self._process = None

    def version(self) -> str:
        return subprocess.run([BIN / "tenon-server", "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]

    def _options(self) -> list:
        return [f"--threads={self.threads}", "--kv-cache-bytes=2147483648", "--adapter-host-bytes=2147483648", *self._extra_flags]

    def flags(self) -> str:
        return "tenon-server " + " ".join(self._options())

    def start(self, files, num_adapters: int):
        self._address = f"unix:{self.work}/tenon.sock"
        log = self.work / "tenon.log"
        self._process = Process(
            [BIN / "tenon-server", f"--model={files.folder}", f"--dtype={files.dtype}", f"--store={self.work}/store",
             f"--listen={self._address}", "--http-listen=127.0.0.1:0", *self._options()], log)
        self._process.wait_until(lambda: b" ready: " in log.read_bytes())
        for index in range(num_adapters):
            subprocess.run([BIN / "tenonctl", f"--server={self._address}", "adapters", "upload", f"adapter-{index}",
                            files.adapters[index]], check=True, stdout=subprocess.DEVNULL)

    def run(self, requests: list) -> Outcome:
        path, report = self.work / "requests.jsonl", self.work / "report.json"
        path.write_text("".join(
            json.dumps({"prompt_tokens": request.prompt, "output_tokens": request.output_tokens,
                        "adapter": "" if request.adapter is None else f"adapter-{request.adapter}"}) + "\n"
            for request in requests))
        subprocess.run([BIN / "serving_benchmark", f"--server={self._address}", f"--requests_file={path}",
                        f"--concurrency={len(requests)}", f"--json={report}"], check=True, stdout=subprocess.DEVNULL)
        result = json.loads(report.read_text())
        if result["failed"]:
            raise RuntimeError(f"{result['num_failed']} requests failed: {result['errors']}")
        # The report has percentiles; the mean is over all requests, as for the peers.
        return Outcome(result["wall_s"], [result["time_to_first_token"]["mean_ms"] / 1000], result["output_tokens"])

    def stop(self):
        if self._process is not None:
            self._process.stop()
            self._process = None
