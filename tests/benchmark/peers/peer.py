"""What the comparison asks of a peer, and the parts that several of them share."""
import abc
import http.client
import json
import os
import socket
import subprocess
import time
from pathlib import Path

from cells import Outcome

START_TIMEOUT_S = 600


class Unsupported(Exception):
    """The peer cannot run a cell; the reason is printed in its place."""


class Peer(abc.ABC):
    """A server or library under test. Started for a model, dtype and number of adapters; then runs cells.

        peer.start(files, num_adapters)
        try:
            outcome = peer.run(requests, concurrency)
        finally:
            peer.stop()
    """

    name = ""

    def __init__(self, work: Path, threads: int):
        self.work = work
        self.threads = threads

    @abc.abstractmethod
    def version(self) -> str:
        """Of the peer and what computes for it."""

    @abc.abstractmethod
    def flags(self) -> str:
        """What it was started with, as a person would type it."""

    def check(self, cell):
        """Raises Unsupported when the cell is out of its reach."""

    @abc.abstractmethod
    def start(self, files, num_adapters: int):
        """Loads the model and that many adapters; answers requests when this returns."""

    @abc.abstractmethod
    def run(self, requests: list, concurrency: int) -> Outcome:
        """The requests, `concurrency` at a time; greedy, end tokens ignored. Raises on an error; who calls checks the lengths."""

    @abc.abstractmethod
    def stop(self):
        """Ends what start began. Does nothing when nothing runs."""


class Process:
    """A child process with its output in a file; stopped by its own id."""

    def __init__(self, command: list, log: Path, environment: dict | None = None, stdin=None, stdout=None):
        self._log_path = log
        self._log = open(log, "wb")
        self._process = subprocess.Popen(
            [str(part) for part in command], stdin=stdin, stdout=stdout or self._log, stderr=self._log,
            env={**os.environ, **{key: str(value) for key, value in (environment or {}).items()}})

    @property
    def stdin(self):
        return self._process.stdin

    @property
    def stdout(self):
        return self._process.stdout

    def wait_until(self, ready):
        """Polls `ready()` until it is true; raises with the end of the log when the process ends or time is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"did not start:\n{self._log_path.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def stop(self):
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def http_ready(port: int, path: str):
    """A predicate for Process.wait_until."""

    def ready() -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False

    return ready


def get_json(port: int, path: str):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    return json.loads(connection.getresponse().read())


class Worker:
    """A library under test in its own interpreter: one JSON line in, one JSON line out."""

    def __init__(self, python: Path, script: Path, work: Path, environment: dict):
        self._process = Process([python, script], work / f"{script.stem}.log", environment, subprocess.PIPE, subprocess.PIPE)

    def ask(self, message: dict) -> dict:
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self._process.wait_until(lambda: False)  # raises with the log
        return json.loads(line)

    def stop(self):
        self._process.stop()


class WorkerPeer(Peer):
    """A peer that is a library: a Worker, whose answer to its first message has its version."""

    def __init__(self, work: Path, threads: int, python: Path, script: Path):
        super().__init__(work, threads)
        self._python = python
        self._script = script
        self._worker = None
        self._version = None

    def version(self) -> str:
        return self._version or "not started"

    def load(self, files, num_adapters: int, environment: dict, setup: dict):
        """Starts it with a model, its first adapters and what `setup` adds."""
        self._worker = Worker(self._python, self._script, self.work, environment)
        self._version = self._worker.ask({
            "model": str(files.folder), "dtype": files.dtype,
            "adapters": [str(folder) for folder in files.adapters[:num_adapters]], **setup})["version"]

    def ask(self, requests: list, concurrency: int, prompts: list, more: dict) -> Outcome:
        answer = self._worker.ask({
            "concurrency": concurrency, "prompts": prompts, "adapters": [request.adapter for request in requests],
            "output_tokens": requests[0].output_tokens, **more})
        return Outcome(answer["wall_s"], answer["sent_s"], answer["token_s"])

    def stop(self):
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
