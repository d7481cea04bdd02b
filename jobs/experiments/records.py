"""Records of finished runs, as the tables and plots of the experiments read them."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class RunRecords:
    """A run directory whose training has finished; its name is KIND-sSEED, its folder's name that of the stream."""

    path: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        """Settings, and the checksum of the events."""
        found: dict[str, Any] = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        return found

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl, in order."""
        lines = (self.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def final(self) -> dict[str, Any]:
        """The record with the test results."""
        return self.records[-1]

    @property
    def sweeps(self) -> list[dict[str, Any]]:
        """The records of the sweeps."""
        return [record for record in self.records if record["record"] == "sweep"]

    @property
    def test_mrr(self) -> float:
        """Test MRR of the best weights."""
        mrr: float = self.final["test"]["mrr"]
        return mrr

    @property
    def validation(self) -> list[tuple[int, float]]:
        """(steps, validation MRR) at the end of each sweep."""
        return [(sweep["step"], sweep["validation"]["mrr"]) for sweep in self.sweeps]

    @property
    def heuristics(self) -> dict[str, float]:
        """Test MRR of each heuristic."""
        return {name: one["mrr"] for name, one in self.final["heuristics"].items()}

    @property
    def stream(self) -> str:
        """Name of the stream's folder."""
        return self.path.parent.name

    @property
    def kind(self) -> str:
        """What is compared within a stream."""
        return self.path.name.rpartition("-s")[0]

    @property
    def seed(self) -> int:
        """The seed in the name."""
        return int(self.path.name.rpartition("-s")[2])


def by_stream_and_kind(runs: list[Path]) -> dict[str, dict[str, list[RunRecords]]]:
    """Runs of each stream and kind, in the order in which they are first named."""
    found: dict[str, dict[str, list[RunRecords]]] = defaultdict(lambda: defaultdict(list))
    for path in runs:
        run = RunRecords(path)
        found[run.stream][run.kind].append(run)
    return found
