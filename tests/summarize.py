#!/usr/bin/env python3
"""Adds up the reports of a test run: summarize.py RESULTS_DIR.

RESULTS_DIR holds PRESET.junit.xml (one entry a ctest suite) and PRESET/*.xml (one GoogleTest report a binary). A suite with a
GoogleTest report counts by its cases; any other suite, and one that died before it wrote a report, counts as one.
Prints each failure and, last, `N passed, N failed, N skipped`. Exits with 1 when something failed or nothing ran.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def suite_outcomes(junit: pathlib.Path):
    """{suite name: "passed" | "failed" | "skipped"} as ctest saw it."""
    outcomes = {}
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        failed = case.find("failure") is not None or case.get("status") == "fail"
        skipped = case.find("skipped") is not None or case.get("status") in ("disabled", "notrun")
        outcomes[case.get("name")] = "failed" if failed else "skipped" if skipped else "passed"
    return outcomes


def case_outcomes(report: pathlib.Path):
    """{case name: outcome} of one GoogleTest binary."""
    outcomes = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = f'{case.get("classname")}.{case.get("name")}'
        if case.find("failure") is not None:
            outcomes[name] = "failed"
        elif case.find("skipped") is not None or case.get("status") == "notrun":
            outcomes[name] = "skipped"
        else:
            outcomes[name] = "passed"
    return outcomes


def main() -> int:
    results = pathlib.Path(sys.argv[1])
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for junit in sorted(results.glob("*.junit.xml")):
        preset = junit.name.split(".")[0]
        for suite, outcome in suite_outcomes(junit).items():
            report = results / preset / f"{suite}.xml"
            cases = case_outcomes(report) if report.exists() else {suite: outcome}
            if outcome == "failed" and "failed" not in cases.values():
                cases[f"{suite} (the process)"] = "failed"
            for name, result in cases.items():
                total[result] += 1
                if result != "passed":
                    print(f"{result.upper()} [{preset}] {name}")
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**total))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
