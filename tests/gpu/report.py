#!/usr/bin/env python3
"""Makes report.json and report.md of what tests/gpu/run.sh left in a folder.

    report.py FOLDER COMMIT_FILE       exit status 1 when a part failed or was skipped
"""
import datetime
import json
import pathlib
import sys

BENCHMARKS = ("decode_1", "decode_32", "decode_32_without_graphs", "decode_32_one_adapter", "decode_32_adapters_32")


def last_json(path: pathlib.Path):
    """The last line of a log that is a JSON object, or None."""
    if not path.exists():
        return None
    for line in reversed(path.read_text(errors="replace").splitlines()):
        if line.startswith("{"):
            try:
                return json.loads(line)
            except json.JSONDecodeError:
                return None
    return None


def read_parts(path: pathlib.Path) -> list[dict]:
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    return [{"name": name, "status": status, "seconds": int(seconds)} for name, status, seconds in rows]


def of_limit(report: dict) -> dict[str, float]:
    """Decode steps against the bytes of the weights over the measured copy bandwidth (KV and adapters left out)."""
    limits = report["limits"]
    if not limits:
        return {}
    floor_ms = 1e3 * limits["weight_bytes_per_step"] / limits["copy_bytes_per_s"]
    return {name: floor_ms / run["decode_step_ms"]["p50"] for name, run in report["benchmarks"].items()}


def ratios(report: dict) -> dict[str, float]:
    """Output tokens a second with adapters over those of the base, 32 requests at once."""
    base = report["benchmarks"].get("decode_32")
    if not base:
        return {}
    return {name: run["output_tokens_per_s"] / base["output_tokens_per_s"]
            for name, run in report["benchmarks"].items() if "adapter" in name}


def make_report(folder: pathlib.Path, commit: str) -> dict:
    runs = {name: last_json(folder / f"{name}.log") for name in BENCHMARKS}
    report = {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit.strip(),
        "parts": read_parts(folder / "parts.tsv"), "limits": last_json(folder / "limits.log"),
        "benchmarks": {name: run for name, run in runs.items() if run}}
    report["of_weight_limit"] = of_limit(report)
    report["of_base_tokens_per_s"] = ratios(report)
    return report


def markdown(report: dict) -> str:
    device = (report["limits"] or {}).get("device", "unknown device")
    lines = [f"# Tenon on {device}", "", f"{report['date']}, commit {report['commit']}", "",
             "| part | status | seconds |", "|---|---|---|"]
    lines += [f"| {part['name']} | {'ok' if part['status'] == '0' else part['status']} | {part['seconds']} |"
              for part in report["parts"]]
    lines += ["", "| benchmark | output tokens/s | decode step p50, ms | of the weights' limit | of the base | replayed steps |",
              "|---|---|---|---|---|---|"]
    for name, run in report["benchmarks"].items():
        limit, base = report["of_weight_limit"].get(name), report["of_base_tokens_per_s"].get(name)
        lines.append(f"| {name} | {run['output_tokens_per_s']:.0f} | {run['decode_step_ms']['p50']:.2f} | "
                     f"{'' if limit is None else f'{limit:.0%}'} | {'' if base is None else f'{base:.1%}'} | "
                     f"{run['replayed_steps']} of {run['steps']} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    folder, commit = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).read_text()
    report = make_report(folder, commit)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    (folder / "report.md").write_text(markdown(report))
    print(markdown(report))
    return 0 if all(part["status"] == "0" for part in report["parts"]) else 1


if __name__ == "__main__":
    sys.exit(main())
