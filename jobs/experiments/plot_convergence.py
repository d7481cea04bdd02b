"""Plot validation MRR against steps of several grids, and tell how near each comes to the first one's best.

python plot_convergence.py FOLDER RUN [RUN ...]     FOLDER gets convergence.svg
"""

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

TOLERANCE = 0.005  # half a point of MRR


@dataclass(frozen=True)
class Curve:
    """A run: steps and validation MRR after each sweep, and the test MRR of its best sweep."""

    seed: int
    steps: list[int]
    mrr: list[float]
    test: float


def curve(run: Path) -> tuple[str, Curve]:
    """Grid of a run, and how it learned."""
    config = json.loads((run / "config.json").read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sweeps = [record for record in records if record["record"] == "sweep"]
    steps, mrr = [sweep["step"] for sweep in sweeps], [sweep["validation"]["mrr"] for sweep in sweeps]
    return config["grid"], Curve(config["seed"], steps, mrr, records[-1]["test"]["mrr"])


def reached(one: Curve, wanted: float) -> str:
    """Steps to an MRR."""
    steps = [step for step, mrr in zip(one.steps, one.mrr, strict=True) if mrr >= wanted]
    return f"{steps[0]:,}" if steps else "–"


def main(folder: Path, runs: list[Path]) -> None:
    """Write the figure, and a table to standard output. Every run is compared with the first grid's of its seed."""
    curves: dict[str, list[Curve]] = defaultdict(list)
    for run in runs:
        grid, one = curve(run)
        curves[grid].append(one)
    first = {one.seed: one for one in next(iter(curves.values()))}
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    titles = [
        "steps",
        "best validation MRR",
        "against the first",
        "test MRR",
        "steps to 0.5 points below its best",
    ]
    sys.stdout.write("grid   " + "  ".join(titles) + "\n")
    for number, (grid, own) in enumerate(curves.items()):
        best = [max(one.mrr) for one in own]
        behind = [100 * (max(one.mrr) - max(first[one.seed].mrr)) for one in own]
        values = [
            f"{own[0].steps[-1]:,}",
            f"{mean(best):.4f} ({min(best):.4f}-{max(best):.4f})",
            f"{mean(behind):+.1f}",
            f"{mean(one.test for one in own):.4f}",
            ", ".join(reached(one, max(first[one.seed].mrr) - TOLERANCE) for one in own),
        ]
        cells = [f"{value:>{len(title)}}" for value, title in zip(values, titles, strict=True)]
        sys.stdout.write(f"{grid:<7}" + "  ".join(cells) + "\n")
        for one in own:
            axes.plot(one.steps, one.mrr, color=f"C{number}", linewidth=0.7, alpha=0.45)
        sweeps = range(min(len(one.mrr) for one in own))
        middle = [mean(one.mrr[sweep] for one in own) for sweep in sweeps]
        label = grid.replace("x", "×")
        axes.plot(
            own[0].steps[: len(middle)], middle, marker="o", markersize=3.5, color=f"C{number}", label=label
        )
    line = mean(max(one.mrr) for one in first.values()) - TOLERANCE
    axes.axhline(line, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(xlabel="steps", ylabel="validation MRR", title="Validation after each sweep, i×j×k trainers")
    axes.legend(title=f"grid, mean of {len(first)} seed{'s' * (len(first) > 1)}")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "convergence.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
