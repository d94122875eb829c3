#!/usr/bin/env python3
"""Kills a process that uses the adapter store, and fails its system calls, at every index.

A driver runs a fixed script of uploads and deletions under strace, which kills it just before the
n-th call of one kind (or makes that call fail), for every n. A second process then opens the store.
Required after a kill:
  - what was acknowledged is there, byte for byte; the operation in flight happened or did not;
  - nothing is half visible, no upload and no unnamed blob stays behind;
  - the store opens at once, in at most 2 s.
After a failed call: the operation answers UNAVAILABLE or RESOURCE_EXHAUSTED and has no effect, the
process lives on, and the following operations succeed.

A kill loses nothing that the kernel has buffered, as a power cut would. The order of writes, fsyncs
and renames that a power cut needs is therefore checked on its own, in a trace of the whole script.

The default is a spread of points that takes well under a minute; --kills 1000 --faults 30 takes every
one (326 kills and 311 faults, about two minutes).

Exit status 77 (skipped) where strace may not trace.
"""
import argparse
import collections
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

SCRIPT = [
    ("put", "acme/fr", "one"),
    ("put", "acme/fr", "two"),
    ("put", "acme/de", "one"),  # shares its blobs with acme/fr@1
    ("delete", "acme/fr@1"),
    ("put", "acme/fr", "two"),  # already the newest: no new version
    ("delete", "acme/fr@2"),    # the last that names its blobs
    ("put", "acme/fr", "two"),  # a deleted version's number is not used again
]
KILL_CALLS = ["write", "pwrite64", "writev", "fsync", "fdatasync", "renameat", "unlinkat", "unlink",
              "mkdir", "mkdirat", "ftruncate"]
FAULTS = [("write", "ENOSPC"), ("write", "EIO"), ("write", "EINTR"), ("pwrite64", "ENOSPC"),
          ("pwrite64", "EIO"), ("pwrite64", "EINTR"), ("fsync", "EIO"), ("fsync", "EINTR"),
          ("fdatasync", "EIO"), ("fdatasync", "ENOSPC"), ("renameat", "EIO"), ("renameat", "ENOSPC"),
          ("mkdirat", "ENOSPC"), ("unlinkat", "EIO"), ("ftruncate", "EIO"), ("pread64", "EIO")]
HARMLESS = {("write", "EINTR"), ("pwrite64", "EINTR"), ("fsync", "EINTR")}
CODES = {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}
RESTART_SECONDS = 2.0
SKIPPED = 77


def adapter_files(seed):
    """What store_driver uploads for a seed."""
    return {"adapter_config.json": b"{}", "adapter_model.safetensors": f"{seed};".encode() * 6000}


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def digest_of(seed):
    lines = (f"{sha256(data)}  {name}\n" for name, data in sorted(adapter_files(seed).items()))
    return sha256("".join(lines).encode())


class Model:
    """What the store must hold: versions by id, and the last number of each name."""

    def __init__(self):
        self.seeds = {}
        self.counters = collections.Counter()

    def copy(self):
        other = Model()
        other.seeds, other.counters = dict(self.seeds), self.counters.copy()
        return other

    def apply(self, operation):
        """The line that acknowledges `operation`, and the model after it."""
        after = self.copy()
        if operation[0] == "delete":
            del after.seeds[operation[1]]
            return f"ok delete {operation[1]}", after
        name, seed = operation[1:]
        newest = max((int(i.split("@")[1]) for i in self.seeds if i.startswith(name + "@")), default=0)
        if newest and self.seeds[f"{name}@{newest}"] == seed:
            return f"ok put {name}@{newest} {digest_of(seed)}", after
        after.counters[name] += 1
        version = f"{name}@{after.counters[name]}"
        after.seeds[version] = seed
        return f"ok put {version} {digest_of(seed)}", after

    def versions(self):
        return {i: digest_of(seed) for i, seed in self.seeds.items()}

    def blobs(self):
        return {sha256(data) for seed in self.seeds.values() for data in adapter_files(seed).values()}


class Fail(Exception):
    pass


def require(condition, message):
    if not condition:
        raise Fail(message)


class Bench:
    """Runs the driver, plain or under strace, against roots below one scratch folder."""

    def __init__(self, driver, scratch):
        self.driver, self.scratch, self.count = driver, scratch, 0

    def root(self, template=None):
        self.count += 1
        root = os.path.join(self.scratch, f"root{self.count}")
        if template:
            shutil.copytree(template, root)
        return root

    def run(self, root, script, strace=()):
        words = [word for operation in script for word in operation]
        command = (["strace", "-f", "-o", os.path.join(self.scratch, "trace"), *strace] if strace else [])
        done = subprocess.run(command + [self.driver, root, *words], capture_output=True, text=True,
                              timeout=30)
        return done.returncode, done.stdout.splitlines()

    def trace(self):
        with open(os.path.join(self.scratch, "trace"), errors="replace") as file:
            return file.readlines()

    def count_calls(self, root, script, calls):
        """Calls of each kind that the script makes, beyond those of an empty start of the program."""
        counts = []
        for arguments in ((root, script), ("", None)):
            if arguments[1] is None:  # no arguments: exits at once
                subprocess.run(["strace", "-f", "-o", os.path.join(self.scratch, "trace"), "-e",
                                "trace=" + ",".join(calls), self.driver], check=False)
            else:
                self.run(*arguments, strace=["-e", "trace=" + ",".join(calls)])
            found = (re.match(r"\d+ +(\w+)\(", line) for line in self.trace())
            counts.append(collections.Counter(match[1] for match in found if match))
        total, startup = counts
        return {call: (startup[call] + 1, total[call]) for call in calls if total[call]}


def check_restart(bench, root, models):
    """Opens the store anew and requires it to hold exactly one of `models`."""
    begin = time.monotonic()
    code, lines = bench.run(root, [("check",)])
    seconds = time.monotonic() - begin
    require(code == 0 and lines[-1:] == ["ok check"], f"restart: exit {code}, {lines}")
    require(seconds <= RESTART_SECONDS, f"restart took {seconds:.1f} s")
    errors = [line for line in lines if line.startswith("error")]
    require(not errors, f"restart: {errors}")
    found = dict(line.split()[1:] for line in lines if line.startswith("version"))
    held = [model for model in models if model.versions() == found]
    require(held, f"holds {sorted(found)}, not any of {[sorted(m.seeds) for m in models]}")
    require(not os.listdir(os.path.join(root, "tmp")), "an upload stayed behind in tmp/")
    blobs = set(os.listdir(os.path.join(root, "blobs", "sha256")))
    require(blobs == held[0].blobs(), f"blobs {blobs ^ held[0].blobs()} are missing or orphans")
    return held[0], seconds


def check_works(bench, root, model):
    """One more upload succeeds, with the number that follows."""
    line, _ = model.apply(("put", "acme/after", "last"))
    _, lines = bench.run(root, [("put", "acme/after", "last")])
    require(lines == ["ok open", line], f"store does not work afterwards: {lines}")


def kill_point(bench, template, start, call, index):
    """Kills before the index-th `call`, then requires acknowledged = held."""
    root = bench.root(template)
    _, lines = bench.run(root, SCRIPT, strace=["-e", f"trace={call}", "-e",
                                               f"inject={call}:signal=KILL:when={index}"])
    model, pending = start, start
    for number, operation in enumerate(SCRIPT, start=1):
        line, after = model.apply(operation)
        if len(lines) <= number:
            pending = after
            break
        require(lines[number] == line, f"answered {lines[number]!r}, not {line!r}")
        model = pending = after
    # A killed start may leave a folder that is no store yet: check makes it one.
    held, seconds = check_restart(bench, root, [model, pending])
    if index % 8 == 0:
        check_works(bench, root, held)
    shutil.rmtree(root)
    return seconds


def fault_point(bench, template, start, call, error, when):
    """Fails calls, requires honest answers in the process and the same store after a restart."""
    root = bench.root(template)
    code, lines = bench.run(root, SCRIPT + [("check",)], strace=[
        "-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"])
    refused = []
    if lines[:1] == ["ok open"]:
        require(code == 0, f"exit {code}, {lines}")
        model, doubt = start, None
        for number, operation in enumerate(SCRIPT, start=1):
            if operation[0] == "delete" and operation[1] not in model.seeds:
                require(lines[number].split()[2] == "NOT_FOUND", lines[number])
                continue
            line, after = model.apply(operation)
            if lines[number].startswith("error"):
                refused.append(lines[number])
                doubt = after
            else:
                require(lines[number] == line, f"answered {lines[number]!r}, not {line!r}")
                model, doubt = after, None if after.seeds != model.seeds else doubt
        unread = [line for line in lines[len(SCRIPT) + 1:] if line.startswith("error")]
        refused += unread
        found = dict(line.split()[1:] for line in lines if line.startswith("version"))
        require(unread or found == model.versions(), f"holds {sorted(found)}, not {sorted(model.seeds)}")
        models = [model] + ([doubt] if doubt else [])
    else:
        require(code == 3 and len(lines) == 1, f"exit {code}, {lines}")
        refused, models = lines, [start]
    codes = {line.split()[2] for line in refused}
    require(codes <= CODES, f"answers {refused}")
    require(not refused or (call, error) not in HARMLESS, f"{error} was not retried: {refused}")
    require("+" in when or len(refused) <= 1, f"one fault, several errors: {refused}")
    held, _ = check_restart(bench, root, models)
    check_works(bench, root, held)
    shutil.rmtree(root)
    return codes


def check_durable_order(bench):
    """Requires every acknowledgement to come after the fsyncs that a power cut asks for."""
    root = os.path.realpath(bench.root())
    calls = "openat,mkdirat,write,pwrite64,writev,fsync,fdatasync,renameat"
    bench.run(root, SCRIPT, strace=["-y", "-s", "300", "-e", f"trace={calls}"])
    dirty, acknowledged = set(), 0
    for line in bench.trace():
        match = re.match(r"\d+ +(\w+)\((.*)", line)
        if not match:
            continue
        call, rest = match.groups()
        path = (re.match(r"\w+<([^>]*)>", rest) or ("", ""))[1]
        if call in ("fsync", "fdatasync"):
            dirty.discard(path)
        elif call in ("write", "pwrite64"):
            dirty.add(path)
        elif call == "mkdirat" and path == root and '"tmp"' not in rest:
            dirty.add(path)
        elif call == "openat" and "O_CREAT" in rest and "catalogue.db" in rest:
            dirty.add(root)
        elif call == "renameat":
            source, name, target = re.match(r'\d+<([^>]*)>, "([^"]*)", \d+<([^>]*)>', rest).groups()
            require(f"{source}/{name}" not in dirty, f"{name} renamed before its fsync")
            dirty.add(target)
        elif call == "writev" and '"ok put' in rest:
            acknowledged += 1
            unsynced = {p for p in dirty if p.startswith(root) and not p.endswith("catalogue.db")}
            require(not unsynced, f"acknowledged before the fsync of {unsynced}")
    puts = sum(operation[0] == "put" for operation in SCRIPT)
    require(acknowledged == puts, f"trace shows {acknowledged} acknowledgements of {puts}")
    shutil.rmtree(root)
    return acknowledged


def make_crashed_root(bench):
    """A root with two versions whose process was killed with uploads and blobs in flight."""
    root = bench.root()
    model = Model()
    script = [("put", "acme/old", "seven"), ("put", "acme/old", "eight")]
    bench.run(root, script, strace=["-e", "trace=writev", "-e", "inject=writev:signal=KILL:when=3"])
    for operation in script:
        _, model = model.apply(operation)
    os.makedirs(os.path.join(root, "tmp", "upload-9"))
    for orphan in (("tmp", "upload-9", "adapter_config.json"), ("blobs", "sha256", "0" * 64)):
        with open(os.path.join(root, *orphan), "w", encoding="ascii") as file:
            file.write("half")
    return root, model


def spread(first, last, points):
    """At most `points` indices from first to last, both included."""
    count = last - first + 1
    if count <= points:
        return list(range(first, last + 1))
    return sorted({first + round(i * (count - 1) / max(1, points - 1)) for i in range(points)})


def report(table, failures, title):
    print(f"\n{title}")
    for row in table:
        print("  " + row)
    for failure in failures:
        print(f"  FAILED {failure}")
    sys.stdout.flush()


def kill_everywhere(bench, roots, points):
    table, failures, total, slowest = [], [], 0, 0.0
    for label, template, model in roots:
        counts = bench.count_calls(bench.root(template), SCRIPT, KILL_CALLS)
        available = sum(last - first + 1 for first, last in counts.values())
        for call, (first, last) in counts.items():
            share = max(1, round(points * (last - first + 1) / available))
            indices = spread(first, last, share)
            bad = 0
            for index in indices:
                total += 1
                try:
                    slowest = max(slowest, kill_point(bench, template, model, call, index))
                except (Fail, subprocess.TimeoutExpired) as failure:
                    bad += 1
                    failures.append(f"{label} {call}#{index}: {failure}")
            table.append(f"{label:8} {call:10} {len(indices):4} of {last - first + 1:4} kills, {bad} bad")
    table.append(f"{total} kills in all; slowest restart {slowest * 1000:.0f} ms")
    report(table, failures, "kill -9 before the n-th call")
    return failures


def fail_everywhere(bench, template, model, points):
    table, failures = [], []
    calls = sorted({call for call, _ in FAULTS})
    counts = bench.count_calls(bench.root(template), SCRIPT, calls)
    for call, error in FAULTS:
        first, last = counts.get(call, (1, 0))
        whens = [str(index) for index in spread(first, last, points)]
        if error == "ENOSPC":  # and a disk that stays full
            whens += [f"{index}+" for index in spread(first, last, max(1, points // 4))]
        codes, bad = set(), 0
        for when in whens:
            try:
                codes |= fault_point(bench, template, model, call, error, when)
            except (Fail, subprocess.TimeoutExpired) as failure:
                bad += 1
                failures.append(f"{call}#{when} {error}: {failure}")
        table.append(f"{call:10} {error:7} {len(whens):4} faults, {bad} bad; "
                     f"answers: {', '.join(sorted(codes)) or 'none'}")
    report(table, failures, "error from the n-th call (n+: from then on)")
    return failures


def can_trace():
    if not shutil.which("strace"):
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True,
                           check=False)
    return None if probe.returncode == 0 else f"strace may not trace here: {probe.stderr.strip()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--driver", required=True, help="the store_driver binary")
    parser.add_argument("--kills", type=int, default=50, help="kill points for each kind of root")
    parser.add_argument("--faults", type=int, default=5, help="fault points for each call and error")
    options = parser.parse_args()
    obstacle = can_trace()
    if obstacle:
        print(f"SKIPPED: {obstacle}")
        return SKIPPED
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tenon-fault-") as scratch:
        bench = Bench(os.path.abspath(options.driver), scratch)
        failures = []
        try:
            print(f"order of fsyncs right for {check_durable_order(bench)} acknowledgements")
        except Fail as failure:
            failures.append(str(failure))
            print(f"FAILED order of fsyncs: {failure}")
        crashed, model = make_crashed_root(bench)
        failures += kill_everywhere(bench, [("fresh", None, Model()), ("crashed", crashed, model)],
                                    options.kills)
        failures += fail_everywhere(bench, crashed, model, options.faults)
    print(f"\n{len(failures)} failures, {time.monotonic() - begin:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
