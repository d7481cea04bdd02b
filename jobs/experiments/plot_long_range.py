"""Plot test MRR against the number of replicas of the node memory, and print it as a table.

python plot_long_range.py FOLDER RUN [RUN ...]   a run is STREAM/K-sSEED, or STREAM/none-sSEED without node memory
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from records import RunRecords, by_stream_and_kind


def mean_after(runs: list[RunRecords], steps: int) -> float:
    """Mean over seeds of validation MRR after the last sweep that ends within ``steps``."""
    return mean([mrr for step, mrr in run.validation if step <= steps][-1] for run in runs)


def figures(run: RunRecords) -> dict:
    """What long_range.json keeps of a run."""
    return {"seed": run.seed, "test": run.test_mrr, "validation": run.validation}


def main(folder: Path, runs: list[Path]) -> None:
    """Write figures and plot, and a table to standard output."""
    found = by_stream_and_kind(runs)
    kept = {
        stream: {kind: [figures(run) for run in own] for kind, own in kinds.items()}
        for stream, kinds in found.items()
    }
    (folder / "long_range.json").write_text(json.dumps(kept, indent=2) + "\n")
    sys.stdout.write(
        "| stream | replicas k | steps | test MRR | against k = 1, points | last validation MRR "
        "| k = 1 after as many steps |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    figure, axes = plt.subplots(
        1, len(found), figsize=(4 * len(found), 3.6), squeeze=False, layout="constrained"
    )
    for each, (stream, kinds) in zip(axes[0], found.items(), strict=True):
        reference = mean(run.test_mrr for run in kinds["1"])
        for kind, own in kinds.items():
            tests = [run.test_mrr for run in own]
            spread = f" ± {stdev(tests):.4f}" if len(tests) > 1 else ""
            name = "no memory" if kind == "none" else kind
            difference = f"{100 * (mean(tests) - reference):+.1f}" if kind != "1" else ""
            steps = own[0].sweeps[-1]["step"]
            last, single = (f"{mean_after(those, steps):.4f}" for those in (own, kinds["1"]))
            cells = [stream, name, f"{steps:,}", f"{mean(tests):.4f}{spread}", difference, last, single]
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
        counts = sorted(int(kind) for kind in kinds if kind != "none")
        values = [[run.test_mrr for run in kinds[f"{count}"]] for count in counts]
        for count, tests in zip(counts, values, strict=True):
            each.plot([count] * len(tests), tests, "o", color="C0", alpha=0.5, markersize=5)
        each.plot(counts, [mean(tests) for tests in values], color="C0", label="with node memory")
        if "none" in kinds:
            without = mean(run.test_mrr for run in kinds["none"])
            each.axhline(without, color="0.5", linewidth=1, linestyle="--", label="without")
        each.set_xscale("log", base=2)
        each.set_xticks(counts, [f"{count}" for count in counts])
        each.minorticks_off()
        each.set(title=stream, xlabel="replicas of the node memory, k", ylabel="test MRR")
        each.set_ylim(0, 1.1 * max(map(max, values)))
        each.legend(fontsize="small", loc="lower left")
        each.grid(alpha=0.3)
    figure.savefig(folder / "long_range.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
