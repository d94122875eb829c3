"""Runs what the bars need, a start of a peer at a time, and prints which are met."""
import os
import sys
import time
import traceback
from pathlib import Path

import bars
import limits
import probes
from history import History
from model_files import make_model
from peer import Unsupported
from shapes import SHAPES
from tenon_peer import TenonPeer

class BarsRun:
    def __init__(self, args, machine: dict, make_peer):
        """`make_peer(name, work)` makes a peer of PEERS."""
        self._args = args
        self._make_peer = make_peer
        self._lines = bars.lines(args.many)
        unknown = set(args.only) - {line.name for line in self._lines}
        if unknown:
            sys.exit(f"unknown lines {', '.join(sorted(unknown))}: want some of {', '.join(line.name for line in self._lines)}")
        self._chosen = [line for line in self._lines if not args.only or line.name in args.only]
        self._build = probes.build_digest()
        self._history = History(args.output / "bars.json", machine)

    def run(self, work: Path):
        if self._args.rounds:
            self._history.add_limits(limits.measure(self._args.threads))
        for number in range(self._args.rounds):
            self._history.data["rounds"] += 1
            for setup, wanted in bars.by_setup(self._chosen):
                if setup.peer in (*bars.OWN, *self._args.peers):
                    self._run_setup(setup, wanted, work, f"round {number + 1} of {self._args.rounds}")
                    self._write()  # a long run that is cut short leaves what it has
        self._write()
        print((self._args.output / "bars.md").read_text())

    def _peer(self, setup, work: Path):
        if setup.peer == "engine":
            return probes.EngineOnly(work, self._args.threads)
        if setup.peer == "tenon":
            store = self._args.cache / "models" / f"store-{setup.model}-{setup.dtype}" if setup.kind == "store" else None
            return TenonPeer(work, self._args.threads, setup.flags, store, as_text=setup.kind == "text")
        return self._make_peer(setup.peer, work)

    def _start(self, setup, work: Path):
        folder = work / f"{time.monotonic_ns()}"  # a store of its own for each start
        folder.mkdir()
        peer = self._peer(setup, folder)
        try:
            files = make_model(self._args.cache / "models", setup.model, setup.dtype, 0 if setup.kind == "store" else setup.adapters)
            peer.start(files, setup.adapters)
        except Exception:
            peer.stop()
            raise
        return peer

    def _run_setup(self, setup, wanted: list, work: Path, where: str):
        results = self._history.results(self._build)
        wanted = [probe for probe in wanted if not bars.is_hopeless(results, probe)]
        if not wanted:
            return
        print(f"{where}: {setup.peer} {setup.kind} {setup.model} {setup.dtype}, {setup.adapters} adapters, load {os.getloadavg()[0]:.1f}",
              flush=True)
        try:
            peer = self._start(setup, work)
        except Exception as error:  # noqa: BLE001, one peer's failure is a line of the report
            for probe in wanted:
                self._fail(probe, error)
            return
        try:
            for probe in wanted:
                self._run_probe(peer, probe, work)
            name = f"{setup.peer} {' '.join(setup.flags)}".strip()
            self._history.data["versions"][name], self._history.data["flags"][name] = peer.version(), peer.flags()
        finally:
            peer.stop()

    def _measure(self, peer, probe, work: Path) -> dict:
        vocab_size = SHAPES[probe.setup.model].vocab_size
        salt = f"{probe.salt} round {self._history.data['rounds']}"
        if probe.beside is None:
            return probes.WAYS[probe.way](peer, probe.cell, vocab_size, salt)
        if probe.beside.setup == probe.setup:
            return probes.side_by_side(peer, probe, peer, vocab_size, salt)
        other = self._start(probe.beside.setup, work)
        try:
            values = probes.side_by_side(peer, probe, other, vocab_size, salt)
            if probe.beside.setup.peer != "tenon" or probe.setup.kind == "store":  # a store is one server's at a time
                return values
            return probes.balanced(values, self._measure_later(probe, other, work, vocab_size, salt))
        finally:
            other.stop()

    def _measure_later(self, probe, other, work: Path, vocab_size: int, salt: str) -> dict:
        """The same with the server that came first being the last: of two that are alike the older one is about 1 % slower."""
        later = self._start(probe.setup, work)
        try:
            return probes.side_by_side(later, probe, other, vocab_size, f"later {salt}")
        finally:
            later.stop()

    def _run_probe(self, peer, probe, work: Path):
        load = os.getloadavg()[0]
        try:
            values = self._measure(peer, probe, work)
        except Exception as error:  # noqa: BLE001
            self._fail(probe, error)
            return
        self._history.add(probe, self._build, load, values)
        beside = f" beside {probe.beside.setup.peer}, {probe.beside.cell}" if probe.beside else ""
        figures = ", ".join(f"{key} {value:.4g}" for key, value in values.items() if value)
        print(f"  {probe.way}, {probe.cell}{beside}: {figures}", flush=True)

    def _fail(self, probe, error: Exception):
        if not isinstance(error, Unsupported):
            traceback.print_exception(error)
        lines = str(error).strip().splitlines()
        reason = (lines[-1] if lines else "")[:200]
        self._history.add(probe, self._build, os.getloadavg()[0],
                          reason=reason if isinstance(error, Unsupported) else f"{type(error).__name__}: {reason}")

    def _write(self):
        self._history.write()
        data, results = self._history.data, self._history.results(self._build)
        head = ["# Tenon's bars", ""] + [f"- {key}: {value}" for key, value in data["machine"].items()]
        head += [f"- highest load before a measurement: {self._history.highest_load()} (above about 1 means that others used the machine "
                 "or that a server had just run)"]
        head += [f"- limits: {data['limits']}"]
        head += [f"- {name}: {version}; `{data['flags'][name]}`" for name, version in data["versions"].items()]
        (self._args.output / "bars.md").write_text("\n".join([*head, "", bars.to_markdown(self._lines, results)]))
        write_rotation_plot(results, self._args.many, self._args.output / "rotation.svg")


def write_rotation_plot(results, many: int, path: Path):
    """Tokens/s and time to first token against the number of adapters in rotation."""
    points = [(key, probe) for key, probe in bars.rotation_probes(many).items() if probe.key in results.values]
    if not points:
        return
    import matplotlib  # here, so that all the rest works without it

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, (metric, label) in zip(axes, (("tokens_per_s", "output tokens/s"), ("first_token_s", "mean time to first token, s"))):
        for popularity in ("zipf", "uniform"):
            line = [(k, results.median(probe, metric)) for (k, kind), probe in points if kind == popularity]
            axis.plot(*zip(*line), marker="o", label=popularity)
        axis.set(xlabel="adapters in rotation", ylabel=label, xscale="log", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path)
