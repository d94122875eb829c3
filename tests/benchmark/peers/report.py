"""The comparison on paper: a table a workload, the ratios with their bars, JSON with every run, and a plot."""
import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path

from limits import share_of_limit
from shapes import SHAPES

OURS = "tenon"


@dataclass
class Measured:
    """All rounds of one cell by one peer; `reason` says why there are none."""

    tokens_per_s: list = field(default_factory=list)
    first_token_s: list = field(default_factory=list)
    reason: str = ""

    @property
    def median(self) -> float | None:
        return statistics.median(self.tokens_per_s) if self.tokens_per_s else None

    @property
    def median_first_token_s(self) -> float | None:
        return statistics.median(self.first_token_s) if self.first_token_s else None


@dataclass
class Comparison:
    machine: dict  # what lscpu says, the load before and after
    versions: dict  # peer -> version
    flags: dict  # peer -> flags
    limits: dict  # what machine_limits printed
    results: dict  # (cell, peer) -> Measured

    def cells(self) -> list:
        return list(dict.fromkeys(cell for cell, _ in self.results))

    def peers(self) -> list:
        return list(dict.fromkeys(peer for _, peer in self.results))

    def get(self, cell, peer: str) -> Measured:
        return self.results.get((cell, peer), Measured(reason="not run"))

    def best_peer(self, cell) -> tuple:
        """(peer, tokens/s) of the fastest but ourselves, or (None, None)."""
        rates = {peer: self.get(cell, peer).median for peer in self.peers() if peer != OURS}
        rates = {peer: rate for peer, rate in rates.items() if rate}
        best = max(rates, key=rates.get, default=None)
        return best, rates.get(best)

    def share_of_limit(self, cell, peer: str) -> float | None:
        rate = self.get(cell, peer).median
        return share_of_limit(cell, SHAPES[cell.model], self.limits, rate) if rate else None

    def of_own_base(self, cell) -> float | None:
        """Our rate with adapters over our rate without, the rest being equal."""
        for base in self.cells():
            if base.adapters == 0 and _workload(base) == _workload(cell):
                ours, own = self.get(cell, OURS).median, self.get(base, OURS).median
                return ours / own if ours and own else None
        return None


def _workload(cell) -> tuple:
    return cell.model, cell.dtype, cell.concurrency, cell.prompt_tokens, cell.output_tokens


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def to_markdown(comparison: Comparison) -> str:
    peers = comparison.peers()
    lines = ["# Tenon beside its peers", ""]
    lines += [f"- {key}: {value}" for key, value in comparison.machine.items()]
    limits = comparison.limits
    lines += [f"- limits: read {limits['read_gb_s']:.1f} GB/s, copy {limits['copy_gb_s']:.1f} GB/s, GEMM (GFLOP/s) " + ", ".join(
        f"{dtype} {', '.join(f'{rate:.0f} at {rows} rows' for rows, rate in rates.items())}"
        for dtype, rates in limits["gemm_gflop_s"].items())]
    lines += [f"- {peer}: {comparison.versions[peer]}; `{comparison.flags[peer]}`" for peer in peers]
    groups = {}
    for cell in comparison.cells():
        groups.setdefault((cell.model, cell.dtype, cell.prompt_tokens, cell.output_tokens), []).append(cell)
    for (model, dtype, prompt, output), cells in groups.items():
        lines += ["", f"## {model}, {dtype}, {prompt} prompt + {output} output tokens", "",
                  "Output tokens/s (mean time to first token, s); medians.", "",
                  "| at once | adapters | " + " | ".join(peers) + " | to the best peer | of own base | of the limit |",
                  "|---" * (len(peers) + 5) + "|"]
        lines += [_row(comparison, cell, peers) for cell in cells]
    notes = sorted({f"{peer}, {cell}: {measured.reason}" for (cell, peer), measured in comparison.results.items() if measured.reason})
    return "\n".join([*lines, "", *(["Not run:", ""] + [f"- {note}" for note in notes] if notes else []), ""])


def _row(comparison: Comparison, cell, peers: list) -> str:
    columns = [str(cell.concurrency), str(cell.adapters)]
    for peer in peers:
        measured = comparison.get(cell, peer)
        first = measured.median_first_token_s
        columns.append(_number(measured.median) + (f" ({first:.2f})" if first is not None else "") if measured.median else "-")
    best, rate = comparison.best_peer(cell)
    ours = comparison.get(cell, OURS).median
    columns.append(f"{ours / rate:.2f}x {best}" if ours and rate else "")
    columns.append(_number(comparison.of_own_base(cell), 2))
    columns.append(_number(comparison.share_of_limit(cell, OURS), 2))
    return "| " + " | ".join(columns) + " |"


def to_json(comparison: Comparison) -> str:
    rows = [{"cell": asdict(cell), "peer": peer, **asdict(measured)} for (cell, peer), measured in comparison.results.items()]
    return json.dumps({"machine": comparison.machine, "versions": comparison.versions, "flags": comparison.flags, "limits": comparison.limits,
                       "runs": rows}, indent=1)


def write_plot(comparison: Comparison, path: Path):
    """Tokens/s against the number of distinct adapters, a line a peer, a panel a workload with several numbers of adapters."""
    import matplotlib  # here, so that a table can be made without it

    matplotlib.use("svg")
    from matplotlib import pyplot

    groups = {}
    for cell in comparison.cells():
        groups.setdefault(_workload(cell), []).append(cell)
    groups = {key: cells for key, cells in groups.items() if len(cells) > 1}
    if not groups:
        return
    figure, axes = pyplot.subplots(1, len(groups), figsize=(5 * len(groups), 4), squeeze=False)
    for axis, ((model, dtype, concurrency, prompt, output), cells) in zip(axes[0], groups.items()):
        for peer in comparison.peers():
            points = [(cell.adapters, comparison.get(cell, peer).median) for cell in cells if comparison.get(cell, peer).median]
            if points:
                axis.plot(*zip(*points), marker="o", label=peer, linewidth=2.5 if peer == OURS else 1.2)
        axis.set(title=f"{model} {dtype}, {concurrency} at once, {prompt}/{output}", xlabel="distinct adapters", ylabel="output tokens/s",
                 ylim=(0, None))
        axis.set_xscale("symlog", base=2)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
