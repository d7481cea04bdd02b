"""Table of the runs of tasks.sh: test metrics over seeds, beside the baselines.

python table_tasks.py RUNS   # RUNS/NAME/KIND-sSEED, KIND one of edge, node, frozen
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

from records import RunRecords

COLUMNS = {"edge": ("f1_micro", "f1_macro"), "node": ("roc_auc", "average_precision")}
TITLES = {"f1_micro": "F1-micro", "f1_macro": "F1-macro", "roc_auc": "ROC-AUC", "average_precision": "AP"}
ROWS = {"edge": "TGN", "node": "TGN, trained along", "frozen": "TGN, frozen"}


def results(run: Path) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Test metrics of a run, of several heads their means, and the baselines'."""
    heads = run / "classify.json"
    if heads.exists():
        found: dict[str, Any] = json.loads(heads.read_text(encoding="utf-8"))
        tests = [head["test"] for head in found["heads"]]
        return {name: fmean(test[name] for test in tests) for name in COLUMNS["node"]}, found["baselines"]
    record = RunRecords(run).final
    return record["test"]["classes"], record["baselines"]


def rows(folder: Path) -> list[str]:
    """Lines of one stream: its kinds of runs, then its baselines."""
    lines, beside = [], {}
    for kind, title in ROWS.items():
        found = [
            results(run) for run in sorted(folder.glob(f"{kind}-s*")) if (run / "metrics.jsonl").exists()
        ]
        columns = COLUMNS["edge" if kind == "edge" else "node"]
        if found:
            values = (", ".join(f"{metrics[column]:.3f}" for metrics, _ in found) for column in columns)
            names = " and ".join(TITLES[column] for column in columns)
            lines.append(f"| {folder.name} | {title} | {names} | {' | '.join(values)} |")
            beside |= {
                name: [f"{metrics[column]:.3f}" for column in columns]
                for name, metrics in found[0][1].items()
            }
    words = (
        f"| {folder.name} | {name.replace('_', ' ')} | | {' | '.join(values)} |"
        for name, values in beside.items()
    )
    return [*lines, *words]


def main(runs: Path) -> None:
    """Write the table of all streams below ``runs``."""
    lines = ["| stream | | metrics | first, by seed | second, by seed |", "|---|---|---|---|---|"]
    for folder in sorted(runs.iterdir()):
        if folder.is_dir():
            lines += rows(folder)
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
