"""What the bars measure: a started peer, a workload, and a way to look at it that gives named figures."""
import dataclasses
import hashlib
import json
import math
import statistics
import subprocess
import sys
from dataclasses import dataclass

import limits
from cells import Cell, Outcome, Request, percentile
from peer import Peer
from shapes import SHAPES
from tenon_peer import BIN

WARMUP_OUTPUT_TOKENS = 8


@dataclass(frozen=True)
class Setup:
    """How a peer is started. Probes of equal setups share one start in a round."""

    peer: str
    model: str = "125m"
    dtype: str = "bf16"
    adapters: int = 0  # loaded, whatever a workload asks for
    flags: tuple = ()  # of Tenon's server alone
    kind: str = ""  # of Tenon alone: "text" sends prompts as text, "store" has its adapters in a store that is kept


@dataclass(frozen=True)
class Probe:
    setup: Setup
    cell: Cell
    way: str = "serve"  # a function of WAYS
    beside: "Probe | None" = None  # measured in turn with this one, and the ratios of this one's figures to its

    @property
    def key(self) -> str:
        setup = self.setup
        own = " | ".join([" ".join([setup.peer, setup.kind, f"with {setup.adapters} adapters", *setup.flags]), str(self.cell), self.way])
        return f"{own} / {self.beside.key}" if self.beside else own

    @property
    def salt(self) -> str:
        """Of its prompts: the same as another peer gets, and other ones than any probe of the same server, whose cache would have them."""
        return f"{self.way} {self.cell}{f' / {self.beside.key}' if self.beside else ''}"


class EngineOnly(Peer):
    """Tenon's engine without gRPC, tokenizer and streams: what the server's overhead is measured against."""

    name = "tenon, engine only"

    def version(self) -> str:
        return "engine_benchmark"

    def flags(self) -> str:
        return f"engine_benchmark --threads={self.threads} --kv_mib=2048"

    def start(self, files, num_adapters: int):
        self._model = files.folder

    def run(self, requests: list, concurrency: int) -> Outcome:
        raise NotImplementedError("it makes its own requests")

    def tokens_per_s(self, cell: Cell) -> float:
        run = subprocess.run(
            [BIN / "engine_benchmark", f"--model={self._model}", f"--adapters={cell.adapters}", f"--concurrency={cell.concurrency}",
             f"--requests={cell.num_requests or cell.concurrency}", f"--warmup={cell.concurrency}",
             f"--prompt_tokens={cell.prompt_tokens}", f"--output_tokens={cell.output_tokens}", f"--threads={self.threads}",
             "--kv_mib=2048"], capture_output=True, text=True, check=True)
        return json.loads(run.stdout.splitlines()[-1])["output_tokens_per_s"]

    def stop(self):
        pass


def measured(peer: Peer, requests: list, concurrency: int) -> Outcome:
    outcome = peer.run(requests, concurrency)
    outcome.check(requests)
    return outcome


def warm_up(peer: Peer, cell: Cell, vocab_size: int, salt: str):
    """As many requests as will be in flight, with short answers: warms caches, allocators and what is compiled on demand."""
    short = dataclasses.replace(cell, num_requests=0, output_tokens=min(cell.output_tokens, WARMUP_OUTPUT_TOKENS))
    measured(peer, short.requests(vocab_size, f"warm {salt}"), cell.concurrency)


def serve(peer: Peer, cell: Cell, vocab_size: int, salt: str) -> dict:
    warm_up(peer, cell, vocab_size, salt)
    outcome = measured(peer, cell.requests(vocab_size, salt), cell.concurrency)
    return {"tokens_per_s": outcome.tokens_per_s, "first_token_s": outcome.mean_first_token_s,
            "decode_tokens_per_s": outcome.decode_tokens_per_s}


LIMIT_TURNS = 3


def beside_limits(peer: Peer, cell: Cell, vocab_size: int, salt: str) -> dict:
    """What the machine allows is measured before and after each of a few short runs, since it is not the same machine at every minute.
    A run of seconds is held against the memory's rate over seconds (`of_bandwidth`); against its fastest moment in `of_best_bandwidth`."""
    warm_up(peer, cell, vocab_size, salt)
    shape, turns = SHAPES[cell.model], []
    before = limits.measure(peer.threads)
    for turn in range(LIMIT_TURNS):
        served = measured(peer, cell.requests(vocab_size, f"turn {turn} {salt}"), cell.concurrency)
        after = limits.measure(peer.threads)
        best, mean = limits.best(before, after), limits.mean(before, after)
        turns.append({
            "of_limit": limits.share_of_limit(cell, shape, best, served.tokens_per_s),
            "of_bandwidth": served.decode_tokens_per_s / limits.decode_tokens_per_s_limit(cell, shape, limits.sustained(mean)),
            "of_best_bandwidth": served.decode_tokens_per_s / limits.decode_tokens_per_s_limit(cell, shape, best)})
        before = after
    return {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}


LONG_PROMPT_TOKENS = 2000


def stall(outcome: Outcome) -> dict:
    """The last request is the long one: how its prefill shows between the tokens of the others. The 99th percentile of their gaps
    while it was prefilled, over the median of the gaps outside that time."""
    sent, first = outcome.sent_s[-1], outcome.token_s[-1][0]
    gaps = dataclasses.replace(outcome, token_s=outcome.token_s[:-1]).gaps()
    inside = [length for end, length in gaps if end >= sent and end - length <= first]
    outside = [length for end, length in gaps if end < sent or end - length > first]
    if not inside or not outside:
        raise RuntimeError(f"{len(inside)} gaps during the prefill, {len(outside)} outside it")
    return {"p99_over_p50": percentile(inside, 0.99) / percentile(outside, 0.5)}


def long_prompt(peer: Peer, cell: Cell, vocab_size: int, salt: str) -> dict:
    warm_up(peer, cell, vocab_size, salt)
    quiet = measured(peer, cell.requests(vocab_size, f"quiet {salt}"), cell.concurrency)
    long = dataclasses.replace(cell, prompt_tokens=LONG_PROMPT_TOKENS, num_requests=1).requests(vocab_size, salt)[0]
    requests = [*cell.requests(vocab_size, salt), Request(long.prompt, None, 8, arrival_s=quiet.wall_s / 3)]
    return stall(measured(peer, requests, len(requests)))


def neighbour(peer: Peer, cell: Cell, vocab_size: int, salt: str) -> dict:
    """The time of a decode step beside a process that is busy all the time, over the time without it."""
    warm_up(peer, cell, vocab_size, salt)
    alone = measured(peer, cell.requests(vocab_size, f"alone {salt}"), cell.concurrency)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        beside = measured(peer, cell.requests(vocab_size, salt), cell.concurrency)
    finally:
        busy.kill()
        busy.wait()
    return {"step_growth": alone.decode_tokens_per_s / beside.decode_tokens_per_s}


def engine(peer: EngineOnly, cell: Cell, vocab_size: int, salt: str) -> dict:
    return {"tokens_per_s": peer.tokens_per_s(cell)}


TURNS = 3


def side_by_side(peer: Peer, probe: Probe, other: Peer, vocab_size: int, salt: str) -> dict:
    """Ratios of what is seconds apart: over minutes the machine's own speed moves as much as what is looked for. `other` is the peer
    of probe.beside, and may be `peer`. Who goes first changes: of two servers that are alike the second is a little faster."""
    turns = []
    for turn in range(TURNS):
        sides = [(0, peer, probe), (1, other, probe.beside)]
        measured_now = {}
        for side, who, which in sides if turn % 2 == 0 else reversed(sides):
            measured_now[side] = WAYS[which.way](who, which.cell, vocab_size, f"turn {turn} {salt}")
        turns.append(measured_now)
    medians = [{metric: statistics.median(turn[side][metric] for turn in turns) for metric in turns[0][side]} for side in (0, 1)]
    return {f"{metric} ratio": medians[0][metric] / medians[1][metric] for metric in medians[0] if metric in medians[1]}


def balanced(first: dict, second: dict) -> dict:
    """The ratios of two comparisons whose errors are each other's inverse."""
    return {name: math.sqrt(first[name] * second[name]) for name in first}


WAYS = {"serve": serve, "beside limits": beside_limits, "long prompt": long_prompt, "neighbour": neighbour, "engine": engine}


def build_digest() -> str:
    """Of the binaries that own figures are measured with: those of another build do not count."""
    digest = hashlib.sha256()
    for name in ("tenon-server", "engine_benchmark"):
        digest.update((BIN / name).read_bytes())
    return digest.hexdigest()[:12]
