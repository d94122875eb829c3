#!/usr/bin/env python3
"""Kills a process that uses the adapter store, and fails its system calls, at every index.

A driver runs a fixed script of uploads, promotions, rollbacks and deletions under strace, which kills it
just before the n-th call of one kind (or makes that call fail), for every n; and without strace, which is
killed at random times. A second process then opens the store. Required after a kill:
  - what was acknowledged is there: versions byte for byte, where each alias points, and its history; the
    operation in flight happened or did not;
  - nothing is half visible, no upload and no unnamed blob stays behind;
  - the store opens at once, in at most 2 s.
After a failed call: the operation answers UNAVAILABLE or RESOURCE_EXHAUSTED and has no effect, the
process lives on, and the following operations succeed.

A kill loses nothing that the kernel has buffered, as a power cut would. The order of writes, fsyncs
and renames that a power cut needs is therefore checked on its own, in a trace of the whole script.

The default is a spread of more than 200 points that takes about a minute; --kills 1000 --faults 30
--random 300 takes every one.

Exit status 77 (skipped) where strace may not trace.
"""
import argparse
import collections
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

SCRIPT = [
    ("put", "acme/fr", "one"),
    ("put", "acme/fr", "two"),
    ("put", "acme/de", "one"),              # shares its blobs with acme/fr@1
    ("promote", "acme/fr@1", "stable"),
    ("promote", "acme/fr@1", "latest"),
    ("rollback", "acme/fr", "latest"),      # to 2 again
    ("delete", "acme/fr@1"),                # stable goes with it
    ("put", "acme/fr", "two"),              # these bytes are there: no new version
    ("promote", "acme/fr@2", "canary"),
    ("delete", "acme/fr@2"),                # the last that names its blobs, and both aliases
    ("put", "acme/fr", "two"),              # a deleted version's number is not used again
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
SEED = 20261125
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
    """What the store must hold: versions by id, aliases, and for each name its last number and history."""

    def __init__(self):
        self.seeds = {}
        self.aliases = {}                            # "acme/fr@latest" -> version
        self.trails = collections.defaultdict(list)  # the same -> versions that it has left, oldest first
        self.counters = collections.Counter()
        self.changes = collections.Counter()         # lines of history, by name

    def copy(self):
        other = Model()
        other.seeds, other.aliases = dict(self.seeds), dict(self.aliases)
        other.trails.update({alias: list(trail) for alias, trail in self.trails.items()})
        other.counters, other.changes = self.counters.copy(), self.changes.copy()
        return other

    def exists(self, name, version):
        return f"{name}@{version}" in self.seeds

    def promote(self, name, alias, version):
        key = f"{name}@{alias}"
        if self.aliases.get(key) == version:
            return
        if key in self.aliases:
            self.trails[key].append(self.aliases[key])
        self.aliases[key] = version
        self.changes[name] += 1

    def back(self, name, alias):
        """Takes an alias where it was before; away when that is nowhere."""
        key = f"{name}@{alias}"
        current = self.aliases.pop(key)
        while self.trails[key]:
            version = self.trails[key].pop()
            if version != current and self.exists(name, version):
                self.aliases[key] = version
                break
        else:
            self.trails[key].append(current)
        self.changes[name] += 1
        return self.aliases.get(key, 0)

    def apply(self, operation):
        """The line that acknowledges `operation`, and the model after it."""
        after = self.copy()
        name, _, number = operation[1].partition("@")
        if operation[0] == "promote":
            after.promote(name, operation[2], int(number))
            return f"ok promote {name}@{operation[2]} {number}", after
        if operation[0] == "rollback":
            return f"ok rollback {name}@{operation[2]} {after.back(name, operation[2])}", after
        if operation[0] == "delete":
            del after.seeds[operation[1]]
            for key, version in sorted(self.aliases.items()):
                if key.startswith(name + "@") and version == int(number):
                    after.back(name, key.split("@")[1])
            after.changes[name] += 1
            return f"ok delete {operation[1]}", after
        seed = operation[2]
        same = [i for i, held in self.seeds.items() if i.startswith(name + "@") and held == seed]
        if same:
            version = max(int(i.split("@")[1]) for i in same)
        else:
            after.counters[name] += 1
            version = after.counters[name]
            after.seeds[f"{name}@{version}"] = seed
        after.promote(name, "latest", version)
        return f"ok put {name}@{version} {digest_of(seed)}", after

    def lines(self):
        """What `check` prints of it."""
        return ({f"version {i} {digest_of(seed)}" for i, seed in self.seeds.items()} |
                {f"alias {alias} {version}" for alias, version in self.aliases.items()} |
                {f"history {name} {count}" for name, count in self.changes.items()})

    def blobs(self):
        return {sha256(data) for seed in self.seeds.values() for data in adapter_files(seed).values()}

    def __eq__(self, other):
        return self.lines() == other.lines()


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
    found = set(lines[1:-1])
    held = [model for model in models if model.lines() == found]
    require(held, f"holds {sorted(found)}, not any of {[sorted(m.lines()) for m in models]}")
    require(not os.listdir(os.path.join(root, "tmp")), "an upload stayed behind in tmp/")
    blobs = set(os.listdir(os.path.join(root, "blobs", "sha256")))
    require(blobs == held[0].blobs(), f"blobs {blobs ^ held[0].blobs()} are missing or orphans")
    return held[0], seconds


def check_works(bench, root, model):
    """One more upload succeeds, with the number that follows."""
    line, _ = model.apply(("put", "acme/after", "last"))
    _, lines = bench.run(root, [("put", "acme/after", "last")])
    require(lines == ["ok open", line], f"store does not work afterwards: {lines}")


def judge_killed(bench, root, start, lines):
    """Requires a store whose process was killed after `lines` to hold what they acknowledge."""
    model, pending = start, start
    for number, operation in enumerate(SCRIPT, start=1):
        line, after = model.apply(operation)
        if len(lines) <= number:
            pending = after
            break
        require(lines[number] == line, f"answered {lines[number]!r}, not {line!r}")
        model = pending = after
    # A killed start may leave a folder that is no store yet: check makes it one.
    return check_restart(bench, root, [model, pending])


def kill_point(bench, template, start, call, index):
    """Kills before the index-th `call`, then requires acknowledged = held."""
    root = bench.root(template)
    _, lines = bench.run(root, SCRIPT, strace=["-e", f"trace={call}", "-e",
                                               f"inject={call}:signal=KILL:when={index}"])
    held, seconds = judge_killed(bench, root, start, lines)
    if index % 8 == 0:
        check_works(bench, root, held)
    shutil.rmtree(root)
    return seconds


def kill_at_random(bench, template, start, delay):
    """Kills after `delay` seconds, then requires acknowledged = held."""
    root = bench.root(template)
    words = [word for operation in SCRIPT for word in operation]
    with subprocess.Popen([bench.driver, root, *words], stdout=subprocess.PIPE, text=True) as process:
        time.sleep(delay)
        process.kill()
        lines = process.stdout.read().splitlines()
    held, seconds = judge_killed(bench, root, start, lines)
    check_works(bench, root, held)
    shutil.rmtree(root)
    return seconds, len(lines)


def possible(model, operation):
    """Whether an operation has something to work on, after others before it failed."""
    name, _, number = operation[1].partition("@")
    if operation[0] == "rollback":
        probe = model.copy()
        return f"{name}@{operation[2]}" in model.aliases and probe.back(name, operation[2]) != 0
    return operation[0] == "put" or model.exists(name, number)


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
            if not possible(model, operation):
                require(lines[number].split()[2] in ("NOT_FOUND", "FAILED_PRECONDITION"), lines[number])
                continue
            line, after = model.apply(operation)
            if lines[number].startswith("error"):
                refused.append(lines[number])
                doubt = after
            else:
                require(lines[number] == line, f"answered {lines[number]!r}, not {line!r}")
                model, doubt = after, None if after != model else doubt
        unread = [line for line in lines[len(SCRIPT) + 1:] if line.startswith("error")]
        refused += unread
        found = set(lines[len(SCRIPT) + 1:-1])
        require(unread or found == model.lines(), f"holds {sorted(found)}, not {sorted(model.lines())}")
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
        elif call == "writev" and re.search('"ok (put|promote|rollback|delete)', rest):
            acknowledged += 1
            unsynced = {p for p in dirty if p.startswith(root) and not p.endswith("catalogue.db")}
            require(not unsynced, f"acknowledged before the fsync of {unsynced}")
    require(acknowledged == len(SCRIPT), f"trace shows {acknowledged} acknowledgements of {len(SCRIPT)}")
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


def kill_at_random_times(bench, roots, count):
    """Kills without strace at times that are spread over a run that nobody kills."""
    begin = time.monotonic()
    bench.run(bench.root(), SCRIPT)
    length = time.monotonic() - begin
    draw = random.Random(SEED)
    table, failures, slowest, reached = [f"seed {SEED}"], [], 0.0, collections.Counter()
    for number in range(count):
        label, template, model = roots[number % len(roots)]
        delay = draw.uniform(0, length * 1.1)
        try:
            seconds, lines = kill_at_random(bench, template, model, delay)
            slowest = max(slowest, seconds)
            reached[max(0, lines - 1)] += 1
        except (Fail, subprocess.TimeoutExpired) as failure:
            failures.append(f"{label} after {delay * 1000:.1f} ms: {failure}")
    spread_text = ", ".join(f"{times} after {acks}" for acks, times in sorted(reached.items()))
    table.append(f"{count} kills over {length * 1000:.0f} ms, {len(failures)} bad; "
                 f"slowest restart {slowest * 1000:.0f} ms")
    table.append(f"acknowledged by then: {spread_text}")
    report(table, failures, "kill -9 at random times")
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
    parser.add_argument("--kills", type=int, default=100, help="kill points for each kind of root")
    parser.add_argument("--faults", type=int, default=4, help="fault points for each call and error")
    parser.add_argument("--random", type=int, default=40, help="kills at random times")
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
        roots = [("fresh", None, Model()), ("crashed", crashed, model)]
        failures += kill_everywhere(bench, roots, options.kills)
        failures += kill_at_random_times(bench, roots, options.random)
        failures += fail_everywhere(bench, crashed, model, options.faults)
    print(f"\n{len(failures)} failures, {time.monotonic() - begin:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
