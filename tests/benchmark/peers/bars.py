"""The bars: what Tenon has to reach on a machine, line by line, and whether it does. Pure: what was measured comes in as Results."""
import dataclasses
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from cells import Cell
from probes import Probe, Setup

OWN = ("tenon", "engine")
PEERS = ("llama.cpp", "vllm", "peft-mixed", "peft-grouped", "mistral.rs")
RATE_RATIO = "tokens_per_s ratio"  # what side_by_side gives
ROTATION = (1, 10, 32, 100, 1000, 2000)  # adapters in rotation


@dataclass
class Results:
    """values: key of a probe -> metric -> round -> number; reasons: key -> why there is none."""

    values: dict
    reasons: dict

    def rounds(self, probe: Probe, metric: str) -> dict:
        return {at: number for at, number in self.values.get(probe.key, {}).get(metric, {}).items() if number is not None}

    def median(self, probe: Probe, metric: str) -> float | None:
        numbers = self.rounds(probe, metric).values()
        return statistics.median(numbers) if numbers else None

    def ratio(self, a: Probe, b: Probe, metric: str) -> float | None:
        """The median over the rounds that have both: the machine is not the same at every hour."""
        above, below = self.rounds(a, metric), self.rounds(b, metric)
        ratios = [above[at] / below[at] for at in above if below.get(at)]
        return statistics.median(ratios) if ratios else None

    def reason(self, probe: Probe) -> str:
        return self.reasons.get(probe.key, "not run")


@dataclass(frozen=True)
class Figure:
    """One bar. `value` gives (number, remark), or (None, why not)."""

    text: str
    bar: float
    value: Callable
    at_most: bool = False

    def judge(self, results: Results) -> tuple:
        """(number or None, remark, met or None)."""
        number, remark = self.value(results)
        if number is None:
            return None, remark, None
        return number, remark, number <= self.bar if self.at_most else number >= self.bar


@dataclass(frozen=True)
class Line:
    name: str
    text: str
    probes: tuple
    figures: tuple


def _missing(results: Results, *probes: Probe) -> str:
    why = "; ".join(f"{probe.setup.peer}: {results.reason(probe)}" for probe in probes if probe.key not in results.values)
    return why or "never in one round"


def _ratio(a: Probe, b: Probe, metric: str = "tokens_per_s") -> Callable:
    def value(results: Results) -> tuple:
        ratio = results.ratio(a, b, metric)
        return (None, _missing(results, a, b)) if ratio is None else (ratio, "")

    return value


def best_of(results: Results, probes: tuple, metric: str, least: bool = False) -> tuple:
    """(probe, number) of the best peer, or (None, None)."""
    found = [(probe, results.median(probe, metric)) for probe in probes]
    found = [(probe, number) for probe, number in found if number]
    return (min if least else max)(found, key=lambda pair: pair[1], default=(None, None))


def _to_best_peer(own: Probe, peers: tuple, metric: str = "tokens_per_s", least: bool = False) -> Callable:
    def value(results: Results) -> tuple:
        ratios = [(results.ratio(own, peer, metric), peer.setup.peer) for peer in peers]
        ratios = [(ratio, name) for ratio, name in ratios if ratio is not None]
        if not ratios:
            return None, _missing(results, own, *peers)
        return (max if least else min)(ratios)

    return value


def _plain(probe: Probe, metric: str, turn=lambda number: number) -> Callable:
    def value(results: Results) -> tuple:
        number = results.median(probe, metric)
        return (turn(number), "") if number is not None else (None, _missing(results, probe))

    return value


def _own(cell: Cell, **setup) -> Probe:
    return Probe(Setup("tenon", cell.model, cell.dtype, cell.adapters, **setup), cell)


def _peers(cell: Cell) -> tuple:
    """One batch an adapter is the same as one batch when there is one adapter at a time."""
    names = [name for name in PEERS if name != "peft-grouped" or min(cell.adapters, cell.concurrency) > 1]
    return tuple(Probe(Setup(name, cell.model, cell.dtype, cell.adapters), cell) for name in names)


def _against_peers(cell: Cell, bar: float, metric: str = "tokens_per_s", text: str = "to the best peer") -> tuple:
    """(probes, figure)."""
    own, peers = _own(cell), _peers(cell)
    return (own, *peers), Figure(text, bar, _to_best_peer(own, peers, metric))


BASE_32 = Cell("125m", "bf16", 0, 32)
BASE_32_LONGER = Cell("125m", "bf16", 0, 32, num_requests=128)
BASE_1 = Cell("125m", "bf16", 0, 1, num_requests=4)


def _beside_own_base(adapters: int) -> Probe:
    """On one server, which has the adapters."""
    own = _own(Cell("125m", "bf16", adapters, 32))
    return dataclasses.replace(own, beside=Probe(own.setup, BASE_32))


def _with_adapters(name: str, adapters: int, of_base: float, to_peer: float) -> Line:
    probes, to_best = _against_peers(Cell("125m", "bf16", adapters, 32), to_peer)
    beside = _beside_own_base(adapters)
    text = f"{adapters} adapter{'s mixed' if adapters > 1 else ''}, 32 at once"
    return Line(name, text, (*probes, beside), (Figure("of own base", of_base, _plain(beside, RATE_RATIO)), to_best))


def _base_lines() -> list:
    probes_32, to_best_32 = _against_peers(BASE_32, 1.6)
    probes_1, to_best_1 = _against_peers(BASE_1, 1.05, "decode_tokens_per_s")
    limit_32, limit_1 = (Probe(Setup("tenon"), cell, "beside limits") for cell in (BASE_32, BASE_1))
    return [
        Line("base-32", "base, 32 at once", (*probes_32, limit_32),
             (to_best_32, Figure("of the machine's limit", 0.60, _plain(limit_32, "of_limit")))),
        Line("base-1", "base, 1 at once, decode", (*probes_1, limit_1),
             (to_best_1, Figure("of the bandwidth's limit", 0.88, _plain(limit_1, "of_bandwidth"))))]


def _unused_line() -> Line:
    loaded = Probe(Setup("tenon", adapters=32), BASE_32_LONGER, beside=_own(BASE_32_LONGER))
    return Line("unused", "base, 32 at once, with 32 adapters loaded and unused", (loaded,),
                (Figure("of a server without", 0.99, _plain(loaded, RATE_RATIO)),))


def _first_token_line() -> Line:
    mixed = Cell("125m", "bf16", 8, 32)
    own, peers, beside = _own(mixed), _peers(mixed), _beside_own_base(8)
    return Line("ttft", "mean time to first token, 32 at once, 8 adapters", (own, *peers, beside), (
        Figure("of own base", 1.5, _plain(beside, "first_token_s ratio"), at_most=True),
        Figure("to the best peer", 0.5, _to_best_peer(own, peers, "first_token_s", least=True), at_most=True)))


def _own_lines() -> list:
    stalled = Probe(Setup("tenon"), Cell("125m", "bf16", 0, 16, 64, 128), "long prompt")
    beside = Probe(Setup("tenon"), BASE_32, "neighbour")
    engine = Probe(Setup("engine"), BASE_32_LONGER, "engine")
    text = dataclasses.replace(_own(BASE_32_LONGER, kind="text"), beside=engine)
    int8 = dataclasses.replace(_own(BASE_32, flags=("--quantization=int8",)), beside=_own(BASE_32))
    return [
        Line("stall", "between tokens of 16 streams, p99 while a 2 000-token prompt is prefilled over p50 otherwise", (stalled,),
             (Figure("ratio", 3, _plain(stalled, "p99_over_p50"), at_most=True),)),
        Line("rpc", "gRPC, tokenization and streaming together, 32 at once", (text,),
             (Figure("loss to the engine alone", 0.05, _plain(text, RATE_RATIO, turn=lambda ratio: 1 - ratio), at_most=True),)),
        Line("int8", "int8, 32 at once", (int8,), (Figure("to own bf16", 1.5, _plain(int8, RATE_RATIO)),)),
        Line("neighbour", "decode step beside a busy process, 32 at once", (beside,),
             (Figure("growth", 2.5, _plain(beside, "step_growth"), at_most=True),))]


def rotation_probes(many: int) -> dict:
    """(adapters, popularity) -> probe, all on one server that has `many` adapters."""
    setup = Setup("tenon", adapters=many, kind="store")
    return {(k, popularity): Probe(setup, Cell("125m", "bf16", k, 32, num_requests=256, popularity=popularity))
            for k in sorted({min(k, many) for k in ROTATION}) for popularity in ("zipf", "uniform")}


def _rotation_line(many: int) -> Line:
    probes = rotation_probes(many)
    return Line("rotation", f"{many} adapters in rotation (Zipf) against 32, 32 at once", tuple(probes.values()), (
        Figure("of the rate with 32", 0.80, _ratio(probes[many, "zipf"], probes[min(32, many), "zipf"])),))


def _big_model_line() -> Line:
    probes, figures = [], []
    for adapters, bar in ((0, 1.1), (8, 2.0)):
        for concurrency in (1, 8):
            # Of one request at a time, eight pass through all the adapters.
            cell = Cell("1b", "bf16", adapters, concurrency, num_requests=8 if adapters > concurrency else 0)
            more, figure = _against_peers(cell, bar, text=f"to the best peer, {adapters} adapters, {concurrency} at once")
            probes += more
            figures.append(figure)
    return Line("1b", "Llama-3.2-1B's shape", tuple(probes), tuple(figures))


def _fp32_line() -> Line:
    base, to_best_base = _against_peers(Cell("125m", "fp32", 0, 32), 1.2, text="to the best peer, base")
    one, to_best_one = _against_peers(Cell("125m", "fp32", 1, 32), 1.3, text="to the best peer, 1 adapter")
    return Line("fp32", "fp32, 32 at once", (*base, *one), (to_best_base, to_best_one))


def lines(many: int = 2000) -> list:
    return [
        *_base_lines(), _with_adapters("adapters-1", 1, 0.92, 3), _with_adapters("adapters-8", 8, 0.88, 4.5),
        _with_adapters("adapters-32", 32, 0.80, 6), _unused_line(), _first_token_line(), *_own_lines(), _rotation_line(many),
        _big_model_line(), _fp32_line()]


def is_hopeless(results: Results, probe: Probe) -> bool:
    """One look at a peer is enough when another is twice as fast and has its first token twice as soon."""
    if probe.setup.peer in OWN or probe.key not in results.values:
        return False
    same = tuple(Probe(Setup(name, probe.setup.model, probe.setup.dtype, probe.setup.adapters), probe.cell) for name in PEERS)
    _, best_rate = best_of(results, same, "tokens_per_s")
    _, best_first = best_of(results, same, "first_token_s", least=True)
    return results.median(probe, "tokens_per_s") < best_rate / 2 and results.median(probe, "first_token_s") > best_first * 2


def by_setup(chosen: list) -> list:
    """[(setup, probes)] of all lines, each probe once, so that peers that are compared run one after another."""
    groups = {}
    for line in chosen:
        for probe in line.probes:
            groups.setdefault(probe.setup, {})[probe] = None
    order = {}
    for setup in groups:
        order.setdefault((setup.model, setup.dtype, setup.adapters), []).append(setup)
    return [(setup, list(groups[setup])) for setups in order.values() for setup in setups]


def to_markdown(chosen: list, results: Results) -> str:
    table = ["| name | line | figure | bar | measured | |", "|---|---|---|---|---|---|"]
    for line in chosen:
        for figure in line.figures:
            number, remark, met = figure.judge(results)
            verdict = {True: "met", False: "**not met**", None: "not measured"}[met]
            measured = "" if number is None else f"{number:.3g}"
            table.append(f"| {line.name} | {line.text} | {figure.text} | {'<=' if figure.at_most else '>='} {figure.bar:g} | {measured}"
                         f"{' (' + remark + ')' if remark and met is not None else ''} | {verdict}{': ' + remark if met is None else ''} |")
    table += ["", "| measured | tokens/s | first token, s | decode tokens/s of a sequence | other | rounds |", "|---|---|---|---|---|---|"]
    known = ("tokens_per_s", "first_token_s", "decode_tokens_per_s")
    for probe in dict.fromkeys(probe for line in chosen for probe in line.probes):
        values = results.values.get(probe.key, {})
        medians = {metric: results.median(probe, metric) for metric in (*known, *values)}
        columns = ["" if medians[metric] is None else f"{medians[metric]:.4g}" for metric in known]
        others = ", ".join(f"{metric} {number:.3g}" for metric, number in medians.items() if metric not in known)
        rounds = max((len(results.rounds(probe, metric)) for metric in values), default=0)
        note = "" if values else results.reason(probe)
        table.append("| " + " | ".join([probe.key.replace(" | ", "; "), *columns, others or note, str(rounds)]) + " |")
    return "\n".join(table) + "\n"
