"""Plot test MRR and captured mails against the batch size, and print both.

python plot_batch_size.py FOLDER RUN [RUN ...]     FOLDER holds captured.json and gets batch_size.svg
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from records import RunRecords


def main(folder: Path, runs: list[Path]) -> None:
    """Write the figure, and a table to standard output."""
    captured = json.loads((folder / "captured.json").read_text())
    shares = {one["batch"]: one["share"] for one in captured["captured"]}
    found: dict[int, list[float]] = defaultdict(list)
    steps = {}
    for run in map(RunRecords, runs):
        size = run.config["local_batch"]
        steps[size] = run.sweeps[-1]["step"]
        found[size].append(run.test_mrr)
    sizes = sorted(found)
    sys.stdout.write(f"{captured['stream']}: test MRR over {len(found[sizes[0]])} seeds\n")
    sys.stdout.write(f"{'batch':>7}{'steps':>8}{'captured':>10}{'mean':>9}{'least':>9}{'most':>9}\n")
    for size in sizes:
        mrrs = found[size]
        numbers = "".join(f"{value:>9.4f}" for value in (mean(mrrs), min(mrrs), max(mrrs)))
        sys.stdout.write(f"{size:>7,}{steps[size]:>8,}{shares[size]:>10.1%}{numbers}\n")
    figure, left = plt.subplots(figsize=(7, 4.2), layout="constrained")
    left.plot(sizes, [mean(found[size]) for size in sizes], marker="o", color="C0", label="test MRR, mean")
    left.fill_between(
        sizes,
        [min(found[size]) for size in sizes],
        [max(found[size]) for size in sizes],
        alpha=0.25,
        color="C0",
        label="all seeds",
    )
    left.set(xscale="log", xlabel="events of a batch", ylabel="test MRR", title=captured["stream"])
    left.set_xticks(sizes, [f"{size:,}" for size in sizes])
    left.minorticks_off()
    left.grid(alpha=0.3)
    right = left.twinx()
    right.plot(
        sizes,
        [shares[size] for size in sizes],
        marker="s",
        linestyle="--",
        color="C1",
        label="captured mails, right",
    )
    right.set(ylabel="captured mails", ylim=(0, 1))
    lines = [*left.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, frameon=False)
    figure.savefig(folder / "batch_size.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
