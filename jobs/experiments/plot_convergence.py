"""Plot validation MRR against steps of several grids, and print how close each comes to the first one's best.

python plot_convergence.py FOLDER RUN [RUN ...]     FOLDER gets convergence.svg
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from records import RunRecords

TOLERANCE = 0.005  # half a point of MRR


def best_mrr(run: RunRecords) -> float:
    """The highest validation MRR."""
    return max(mrr for _, mrr in run.validation)


def steps_to(run: RunRecords, wanted: float) -> str:
    """Steps until validation MRR reaches ``wanted``."""
    steps = [step for step, mrr in run.validation if mrr >= wanted]
    return f"{steps[0]:,}" if steps else "–"


def main(folder: Path, runs: list[Path]) -> None:
    """Write the figure, and a table to standard output. Every run is compared with the first grid's of its seed."""
    by_grid: dict[str, list[RunRecords]] = defaultdict(list)
    for run in map(RunRecords, runs):
        by_grid[run.config["grid"]].append(run)
    first = {run.config["seed"]: best_mrr(run) for run in next(iter(by_grid.values()))}
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    titles = [
        "steps",
        "best validation MRR",
        "against the first",
        "test MRR",
        "steps to 0.5 points below its best",
    ]
    sys.stdout.write("grid   " + "  ".join(titles) + "\n")
    for number, (grid, own) in enumerate(by_grid.items()):
        best = [best_mrr(run) for run in own]
        behind = [100 * (best_mrr(run) - first[run.config["seed"]]) for run in own]
        values = [
            f"{own[0].sweeps[-1]['step']:,}",
            f"{mean(best):.4f} ({min(best):.4f}-{max(best):.4f})",
            f"{mean(behind):+.1f}",
            f"{mean(run.test_mrr for run in own):.4f}",
            ", ".join(steps_to(run, first[run.config["seed"]] - TOLERANCE) for run in own),
        ]
        cells = [f"{value:>{len(title)}}" for value, title in zip(values, titles, strict=True)]
        sys.stdout.write(f"{grid:<7}" + "  ".join(cells) + "\n")
        for run in own:
            axes.plot(*zip(*run.validation, strict=True), color=f"C{number}", linewidth=0.7, alpha=0.45)
        sweeps = list(zip(*(run.validation for run in own), strict=False))
        steps = [points[0][0] for points in sweeps]
        middle = [mean(mrr for _, mrr in points) for points in sweeps]
        label = grid.replace("x", "×")
        axes.plot(steps, middle, marker="o", markersize=3.5, color=f"C{number}", label=label)
    line = mean(first.values()) - TOLERANCE
    axes.axhline(line, color="0.6", linewidth=0.8, linestyle="--")
    axes.set(xlabel="steps", ylabel="validation MRR", title="Validation after each sweep, i×j×k trainers")
    axes.legend(title=f"grid, mean of {len(first)} seed{'s' * (len(first) > 1)}")
    axes.grid(alpha=0.3)
    figure.savefig(folder / "convergence.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
