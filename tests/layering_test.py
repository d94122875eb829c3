#!/usr/bin/env python3
"""Fails on an #include that goes up or sideways in the layering, or on a library in a folder that must not see it.

LAYERS is ARCHITECTURE.md's table as data: a folder may include itself, what stands in its own list, and what those may
include. Two lines are defended beside it: nothing below rpc/ sees gRPC, nothing in the pure folders sees torch.
"""
import collections
import pathlib
import re
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent

# folder -> folders it may include directly. Transitive use is allowed where the direct one is.
LAYERS = {
    "adapters/base": [],
    "adapters/registry": ["adapters/base"],
    "adapters/formats": ["adapters/base", "adapters/registry"],
    "adapters/s3": ["adapters/base"],
    "adapters/store": ["adapters/base", "adapters/registry", "adapters/formats", "adapters/s3"],
    "adapters/kernels/cuda": [],
    "adapters/kernels": ["adapters/base", "adapters/kernels/cuda"],
    "adapters/methods": ["adapters/base", "adapters/formats", "adapters/kernels", "adapters/registry"],
    "adapters/residency": [
        "adapters/base", "adapters/formats", "adapters/kernels", "adapters/methods", "adapters/registry", "adapters/store"],
    "server/telemetry": ["adapters/base"],
    "server/tenant": ["adapters/base", "adapters/registry", "server/telemetry"],
    "server/tokenizer": ["adapters/base"],
    "server/scheduler": ["adapters/base", "adapters/registry", "server/tenant"],
    "server/kernels/cuda": ["adapters/kernels/cuda"],
    "server/kernels": ["adapters/base", "adapters/kernels", "adapters/kernels/cuda", "server/kernels/cuda"],
    "server/model": [
        "adapters/base", "adapters/formats", "adapters/kernels", "adapters/methods", "adapters/registry",
        "server/kernels", "server/scheduler"],
    "server/engine": [
        "adapters/base", "adapters/methods", "adapters/registry", "adapters/residency",
        "server/model", "server/scheduler", "server/tokenizer"],
    "server/rpc": [
        "adapters/base", "adapters/formats", "adapters/registry", "adapters/residency", "adapters/store",
        "server/engine", "server/model", "server/scheduler", "server/telemetry", "server/tenant", "server/tokenizer"],
    "server/http": [
        "adapters/base", "adapters/registry", "adapters/residency", "server/engine", "server/telemetry", "server/tenant",
        "server/tokenizer"],
    "server": None,  # the composition root: anything of adapters/ and server/
    "client": ["client"],
}
PURE = ("adapters/base", "adapters/registry", "adapters/formats", "adapters/s3", "adapters/store", "server/scheduler", "server/tenant",
        "server/telemetry", "server/tokenizer", "client")
TORCH = re.compile(r"^(ATen|torch|c10|caffe2)/")
GRPC = re.compile(r"^(grpc|grpcpp|grpc\+\+)/|\.grpc\.pb\.h$")
MAY_SEE_GRPC = ("server/rpc", "client")

# A pure folder must not reach torch through the headers of another one either.
SEES_TORCH = ("adapters/kernels", "adapters/methods", "adapters/residency", "server/kernels", "server/model")


def folder_of(path: str) -> str:
    """The layer that a file belongs to: its folder, or 'client' for everything below client/."""
    parent = str(pathlib.PurePosixPath(path).parent)
    return "client" if parent.split("/")[0] == "client" else parent


def sources():
    for top in ("adapters", "server", "client"):
        for path in sorted((ROOT / top).rglob("*")):
            if path.suffix in (".h", ".cc", ".cu", ".cuh") and "target" not in path.parts:
                yield path.relative_to(ROOT).as_posix()


def includes(path: str):
    """(line number, included path) of each #include of a file."""
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+["<]([^">]+)[">]', line)
        if match:
            yield number, match.group(1)


class LayeringTest(unittest.TestCase):
    def test_there_is_something_to_check(self):
        self.assertGreater(len(list(sources())), 20)

    def test_every_folder_has_a_layer(self):
        unknown = {folder_of(path) for path in sources()} - set(LAYERS)
        self.assertEqual(unknown, set(), "folders without a row in LAYERS")

    def test_no_folder_includes_upward(self):
        wrong = []
        for path in sources():
            folder = folder_of(path)
            allowed = LAYERS.get(folder)
            if allowed is None:
                continue
            for number, target in includes(path):
                target_folder = folder_of(target)
                is_ours = target.split("/")[0] in ("adapters", "server", "client", "tests") and (ROOT / target).exists()
                if is_ours and target_folder != folder and target_folder not in allowed:
                    wrong.append(f"{path}:{number} includes {target}")
        self.assertEqual(wrong, [])

    def test_the_table_has_no_cycle(self):
        graph = {folder: allowed or [] for folder, allowed in LAYERS.items()}
        state = collections.Counter()

        def visit(folder, trail):
            self.assertNotEqual(state[folder], 1, " -> ".join(trail + [folder]))
            if state[folder] == 0:
                state[folder] = 1
                for below in graph[folder]:
                    if below != folder:
                        visit(below, trail + [folder])
                state[folder] = 2

        for folder in graph:
            visit(folder, [])

    def test_pure_folders_do_not_see_torch(self):
        wrong = [f"{path}:{number} includes {target}" for path in sources() if folder_of(path) in PURE
                 for number, target in includes(path) if TORCH.match(target) or folder_of(target) in SEES_TORCH]
        self.assertEqual(wrong, [])

    def test_only_rpc_and_client_see_grpc(self):
        allowed = MAY_SEE_GRPC + ("server",)
        wrong = [f"{path}:{number} includes {target}" for path in sources() if folder_of(path) not in allowed
                 for number, target in includes(path) if GRPC.search(target)]
        self.assertEqual(wrong, [])

    def test_whole_torch_headers_are_not_used(self):
        wrong = [f"{path}:{number} includes {target}" for path in sources() for number, target in includes(path)
                 if target in ("ATen/ATen.h", "torch/torch.h", "torch/extension.h")]
        self.assertEqual(wrong, [], "use the per-operator headers: these cost 17 s a file")


if __name__ == "__main__":
    sys.exit(unittest.main())
