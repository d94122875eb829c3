#!/usr/bin/env python3
"""Tenon beside llama.cpp, vLLM, mistral.rs and transformers + PEFT on this machine's CPU: the same work for all, side by side.

    tests/benchmark/peers/install.sh                     the peers, below .cache/peers
    .cache/peers/tools/bin/python tests/benchmark/peers/run.py --bars               what Tenon has to reach, and whether it does
    .cache/peers/tools/bin/python tests/benchmark/peers/run.py --bars --only base-32,neighbour --rounds 1
    .cache/peers/tools/bin/python tests/benchmark/peers/run.py                      the grid of the tables, hours
    .cache/peers/tools/bin/python tests/benchmark/peers/run.py --adapters 0,8 --concurrency 32 --peers tenon,peft-mixed

Same weights, adapters (rank 16 on all linear layers), prompts, lengths, dtype and threads for each; greedy, end tokens ignored; all
requests of a cell at once. Rounds are interleaved (A B C, A B C, ...) and medians reported. Each peer is started anew for each round, one
at a time, so that none takes memory or a core from another, and runs the cell once before the run that counts.
Writes results.md, results.json and adapters.svg to --output; --bars writes bars.md, bars.json and rotation.svg, and adds its rounds to
what bars.json has.
"""
import argparse
import datetime
import os
import platform
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import limits
import probes
from bars_run import BarsRun
from cells import grid
from llama_cpp_peer import LlamaCppPeer
from mistralrs_peer import MistralRsPeer
from model_files import SHAPES, make_model
from peer import Unsupported
from peft_peer import PeftPeer
from report import Comparison, Measured, to_json, to_markdown, write_plot
from tenon_peer import TenonPeer
from vllm_peer import VllmPeer

ROOT = Path(__file__).resolve().parents[3]


def integers(text: str) -> list:
    return [int(part) for part in text.split(",")]


PEERS = {
    "tenon": lambda cache, work, threads: TenonPeer(work, threads),
    "llama.cpp": lambda cache, work, threads: LlamaCppPeer(work, threads, cache / "llama.cpp/bin/llama-server"),
    "vllm": lambda cache, work, threads: VllmPeer(work, threads, cache / "vllm/bin/python"),
    "peft-mixed": lambda cache, work, threads: PeftPeer(work, threads, cache / "peft/bin/python", "mixed"),
    "peft-grouped": lambda cache, work, threads: PeftPeer(work, threads, cache / "peft/bin/python", "grouped"),
    "mistral.rs": lambda cache, work, threads: MistralRsPeer(work, threads, cache / "mistralrs/bin/python"),
}


def names_of(known):
    """An argparse type: names of `known`, with commas between them."""
    def names(text: str) -> list:
        unknown = [name for name in text.split(",") if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: want some of {', '.join(known)}")
        return text.split(",")
    return names


def lengths(text: str) -> list:
    return [tuple(int(side) for side in part.split("/")) for part in text.split(",")]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=names_of(SHAPES), default=["125m"], help=f"of {', '.join(SHAPES)}")
    parser.add_argument("--dtypes", type=names_of(["bf16", "fp32"]), default=["bf16"])
    parser.add_argument("--adapters", type=integers, default=[0, 1, 4, 8, 32])
    parser.add_argument("--concurrency", type=integers, default=[1, 8, 32])
    parser.add_argument("--lengths", type=lengths, default=[(64, 64)], help="prompt/output, as 64/64,512/64,64/256")
    parser.add_argument("--peers", type=names_of(PEERS), default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("TENON_PEERS_CACHE", ROOT / ".cache/peers")),
                        help="models, and the peers that install.sh makes; default: $TENON_PEERS_CACHE or .cache/peers")
    parser.add_argument("--output", type=Path, help="default: results below --cache")
    parser.add_argument("--bars", action="store_true", help="the bars instead of the grid; --rounds 0 prints what is there")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="names of bars")
    parser.add_argument("--many", type=int, default=2000, help="adapters of the line `rotation`")
    args = parser.parse_args()
    args.output = args.output or args.cache / "results"
    return args


def make_peer(args, name: str, work: Path):
    return PEERS[name](args.cache, work, args.threads)


def machine() -> dict:
    cpu = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())
    flags = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), "").split()
    units = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if flag in flags]
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()
    return {"date": datetime.date.today().isoformat(), "CPU": f"{os.cpu_count()} x {cpu} ({', '.join(units)})", "commit": commit,
            "load before": f"{os.getloadavg()[0]:.1f}"}


def run_cell(peer, files, cell, measured: Measured, salt: str):
    """One round of one cell by one peer, added to `measured`."""
    try:
        peer.check(cell)
        peer.start(files, cell.adapters)
        values = probes.serve(peer, cell, files.shape.vocab_size, salt)
    except Unsupported as reason:
        measured.reason = str(reason)
        return
    except Exception as error:  # noqa: BLE001, one peer's failure is a line of the report
        traceback.print_exc()
        measured.reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1][:200]}"
        return
    finally:
        peer.stop()
    measured.tokens_per_s.append(values["tokens_per_s"])
    measured.first_token_s.append(values["first_token_s"])
    print(f"  {peer.name:24} {values['tokens_per_s']:8.1f} tokens/s, first token after {values['first_token_s']:.2f} s", flush=True)


def write(args, comparison: Comparison):
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "results.md").write_text(to_markdown(comparison))
    (args.output / "results.json").write_text(to_json(comparison))
    write_plot(comparison, args.output / "adapters.svg")


def run_grid(args, work: Path):
    cells = grid(args.models, args.dtypes, args.adapters, args.concurrency, args.lengths)
    peers = [make_peer(args, name, work) for name in args.peers]
    results = {(cell, peer.name): Measured() for cell in cells for peer in peers}
    comparison = Comparison(machine(), {}, {}, limits.measure(args.threads), results)
    for number, cell in enumerate(cells, 1):
        files = make_model(args.cache / "models", cell.model, cell.dtype, max(args.adapters))
        for round_index in range(args.rounds):
            print(f"{number}/{len(cells)} {cell}, round {round_index + 1} of {args.rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
            for peer in peers:
                if not results[cell, peer.name].reason:
                    run_cell(peer, files, cell, results[cell, peer.name], f"round {round_index}")
        comparison.versions.update({peer.name: peer.version() for peer in peers})
        comparison.flags.update({peer.name: peer.flags() for peer in peers})
        write(args, comparison)  # after each cell: a long run that is cut short leaves what it has
    comparison.machine["load after"] = f"{os.getloadavg()[0]:.1f}"
    write(args, comparison)
    print((args.output / "results.md").read_text())


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # by way of `finally`, which stops the peers
    with tempfile.TemporaryDirectory() as folder:
        if args.bars:
            BarsRun(args, machine(), lambda name, work: make_peer(args, name, work)).run(Path(folder))
        else:
            run_grid(args, Path(folder))


if __name__ == "__main__":
    main()
