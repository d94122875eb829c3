"""What `run.py --bars` has measured so far, in one JSON file: rounds of several calls add up."""
import json
from pathlib import Path

import limits
from bars import OWN, Results


class History:
    def __init__(self, path: Path, machine: dict):
        """Reads what is there. Raises ValueError when it is of another CPU."""
        self._path = path
        self.data = {"machine": machine, "limits": {}, "versions": {}, "flags": {}, "rounds": 0, "runs": []}
        if path.exists():
            self.data = json.loads(path.read_text())
            if self.data["machine"]["CPU"] != machine["CPU"]:
                raise ValueError(f"{path} is of another machine: {self.data['machine']['CPU']}")
            self.data["machine"] = machine

    def add_limits(self, measured: dict):
        self.data["limits"] = limits.best(self.data["limits"], measured) if self.data["limits"] else measured

    def add(self, probe, build: str, load: float, values: dict | None = None, reason: str = ""):
        self.data["runs"].append({"probe": probe.key, "peer": probe.setup.peer, "build": build if probe.setup.peer in OWN else "",
                                  "round": self.data["rounds"], "load": round(load, 2), "values": values or {}, "reason": reason})

    def results(self, build: str) -> Results:
        """Own figures only of the given build; the peers' are of all calls. A reason stands until there is a figure."""
        values, reasons = {}, {}
        for run in self.data["runs"]:
            if run["peer"] in OWN and run["build"] != build:
                continue
            if run["reason"]:
                reasons[run["probe"]] = run["reason"]
            for metric, number in run["values"].items():
                values.setdefault(run["probe"], {}).setdefault(metric, {})[run["round"]] = number
        return Results(values, reasons)

    def highest_load(self) -> float:
        return max((run["load"] for run in self.data["runs"]), default=0.0)

    def write(self):
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_name(self._path.name + ".partial")
        partial.write_text(json.dumps(self.data, indent=1))
        partial.rename(self._path)
