#!/usr/bin/env python3
"""Tenon over real gRPC beside transformers + PEFT: the same requests, side by side in one run.

  tests/benchmark/serving/against_peft.py --model DIR [--requests 32] [--adapters 8] [--rounds 3] [--dtype bf16]

Makes N random rank-16 adapters on all linear layers (PEFT's own save_pretrained), starts tenon-server, uploads them, and then
alternates rounds: Tenon, PEFT mixed, PEFT grouped, Tenon, ... Requests go round robin over the adapters and the bare base.
Prints the median of each, the ratio to PEFT's better way, how many requests got the same tokens, versions and machine load.
Needs the reference environment (tests/golden/requirements.txt) and a release build.
"""
import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

import peft
import torch
import transformers

import peft_baseline

ROOT = pathlib.Path(__file__).resolve().parents[3]
BIN = ROOT / "build/release/bin"


def make_adapters(model_dir: str, count: int, folder: pathlib.Path) -> dict:
    """`count` random rank-16 LoRA adapters on all linear layers: name -> folder. Weights are small enough to keep text sane."""
    base = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    config = peft.LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False)
    adapters = {}
    model = None
    for index in range(count):
        name = f"bench-{index}"
        torch.manual_seed(index)
        if model is None:
            model = peft.get_peft_model(base, config, adapter_name=name)
        else:
            model.add_adapter(name, config)
        for key, value in model.named_parameters():
            if f".{name}." in key:
                torch.nn.init.normal_(value, std=0.02)
        model.save_pretrained(folder, selected_adapters=[name])
        adapters[name] = str(folder / name)
    return adapters


def make_requests(args, vocab_size: int, adapters: dict) -> list:
    """[(prompt ids, adapter name or "")], prompts of equal length."""
    rng = random.Random(args.seed)
    names = ["", *adapters]
    return [([rng.randrange(100, vocab_size) for _ in range(args.prompt_tokens)], names[i % len(names)])
            for i in range(args.requests)]


class TenonServer:
    """A running tenon-server with the adapters uploaded."""

    def __init__(self, args, adapters: dict, work: pathlib.Path):
        self._address = f"unix:{work}/tenon.sock"
        self._log = open(work / "server.log", "w+")
        self._process = subprocess.Popen(
            [BIN / "tenon-server", f"--model={args.model}", f"--store={work}/store", f"--listen={self._address}",
             "--http-listen=127.0.0.1:0", f"--dtype={args.dtype}", f"--threads={args.threads}"], stdout=self._log, stderr=self._log)
        while " ready: " not in (work / "server.log").read_text():
            if self._process.poll() is not None:
                sys.exit((work / "server.log").read_text())
            time.sleep(0.05)
        for name, folder in adapters.items():
            subprocess.run([BIN / "tenonctl", f"--server={self._address}", "adapters", "upload", name, folder],
                           check=True, stdout=subprocess.DEVNULL)
        self._work = work

    def run(self, requests: list, output_tokens: int) -> tuple:
        """All requests at once. Returns (seconds, tokens of each request)."""
        path = self._work / "requests.jsonl"
        path.write_text("".join(
            json.dumps({"prompt_tokens": prompt, "adapter": adapter, "output_tokens": output_tokens}) + "\n"
            for prompt, adapter in requests))
        report = self._work / "report.json"
        subprocess.run([BIN / "serving_benchmark", f"--server={self._address}", f"--requests_file={path}",
                        f"--concurrency={len(requests)}", f"--json={report}", "--outputs"],
                       check=True, stdout=subprocess.DEVNULL)
        result = json.loads(report.read_text())
        return result["wall_s"], result["outputs"]

    def stop(self):
        self._process.terminate()
        self._process.wait()


def same_requests(a: list, b: list) -> int:
    return sum(x == y for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--adapters", type=int, default=8)
    parser.add_argument("--requests", type=int, default=32)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        adapters = make_adapters(args.model, args.adapters, work / "adapters")
        vocab_size = json.loads((pathlib.Path(args.model) / "config.json").read_text())["vocab_size"]
        requests = make_requests(args, vocab_size, adapters)
        dtype = torch.bfloat16 if args.dtype == "bf16" else torch.float32
        baseline = peft_baseline.PeftBaseline(args.model, adapters, dtype, args.threads)
        server = TenonServer(args, adapters, work)
        ways = {
            "tenon (gRPC)": lambda: server.run(requests, args.output_tokens),
            "PEFT, mixed batch": lambda: baseline.run("mixed", requests, args.output_tokens),
            "PEFT, batch per adapter": lambda: baseline.run("grouped", requests, args.output_tokens),
        }
        seconds = {way: [] for way in ways}
        tokens = {}
        try:
            for round_index in range(args.rounds + 1):  # the first warms up
                for way, run in ways.items():
                    elapsed, tokens[way] = run()
                    print(f"round {round_index}, {way}: {elapsed:.1f} s", file=sys.stderr, flush=True)
                    if round_index:
                        seconds[way].append(elapsed)
        finally:
            server.stop()

    total = args.requests * args.output_tokens
    median = {way: statistics.median(values) for way, values in seconds.items()}
    best_peer = min(value for way, value in median.items() if "PEFT" in way)
    print(f"{args.requests} requests at once over {args.adapters} adapters and the base, {args.prompt_tokens} + {args.output_tokens} "
          f"tokens, {args.dtype}, {args.threads} threads, median of {args.rounds}, load {os.getloadavg()[0]:.1f}")
    print(baseline.versions())
    for way, value in median.items():
        print(f"  {way:26} {total / value:8.1f} tokens/s   {best_peer / value:5.2f}x of PEFT's better way")
    agree = same_requests(tokens["tenon (gRPC)"], tokens["PEFT, mixed batch"])
    peers = same_requests(tokens["PEFT, batch per adapter"], tokens["PEFT, mixed batch"])
    print(f"  equal to PEFT's mixed batch: tenon {agree}, PEFT by adapter {peers}, of {args.requests} requests")


if __name__ == "__main__":
    main()
