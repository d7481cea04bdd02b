"""Plot validation MRR against steps of several runs, and say when each reached the first one's best.

python plot_convergence.py OUT.svg RUN [RUN ...]
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

TOLERANCE = 0.005  # half a point of MRR


def curve(run: Path) -> tuple[str, list[int], list[float]]:
    """Grid of a run, and steps and validation MRR of its sweeps."""
    grid = json.loads((run / "config.json").read_text())["grid"]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sweeps = [record for record in records if record["record"] == "sweep"]
    return grid, [sweep["step"] for sweep in sweeps], [sweep["validation"]["mrr"] for sweep in sweeps]


def main(out: Path, runs: list[Path]) -> None:
    """Write the figure and a table to standard output."""
    curves = [curve(run) for run in runs]
    best = max(curves[0][2])
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    sys.stdout.write(f"{'grid':<8}{'best MRR':>10}{'steps to within 0.5 points of the first best':>48}\n")
    for grid, steps, mrr in curves:
        reached = [step for step, value in zip(steps, mrr, strict=True) if value >= best - TOLERANCE]
        axes.plot(steps, mrr, marker="o", markersize=3.5, label=grid.replace("x", "×"))
        sys.stdout.write(f"{grid:<8}{max(mrr):>10.4f}{reached[0] if reached else 'not reached':>48}\n")
    axes.axhline(best - TOLERANCE, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(xlabel="steps", ylabel="validation MRR", title="Validation after each sweep, i×j×k trainers")
    axes.legend(title="grid")
    axes.grid(alpha=0.3)
    figure.savefig(out)


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
