"""Plot test MRR against the number of replicas of the node memory, and print it as a table.

python plot_long_range.py FOLDER RUN [RUN ...]   a run is STREAM/K-sSEED, or STREAM/none-sSEED without node memory
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt


def read(run: Path) -> dict:
    """What a run came to."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sweeps = [record for record in records if record["record"] == "sweep"]
    return {
        "seed": int(run.name.rpartition("-s")[2]),
        "test": records[-1]["test"]["mrr"],
        "validation": [(record["step"], record["validation"]["mrr"]) for record in sweeps],
    }


def after(ones: list[dict], steps: int) -> float:
    """Mean over seeds of validation MRR at the last sweep's end that so many steps reach."""
    return mean([mrr for step, mrr in one["validation"] if step <= steps][-1] for one in ones)


def main(folder: Path, runs: list[Path]) -> None:
    """Write figures and plot, and a table to standard output."""
    found: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        found[run.parent.name][run.name.rpartition("-s")[0]].append(read(run))
    (folder / "long_range.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(
        "| stream | replicas k | steps | test MRR | against k = 1, points | last validation MRR "
        "| k = 1 after as many steps |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    figure, axes = plt.subplots(
        1, len(found), figsize=(4 * len(found), 3.6), squeeze=False, layout="constrained"
    )
    for each, (stream, kinds) in zip(axes[0], found.items(), strict=True):
        reference = mean(one["test"] for one in kinds["1"])
        for kind, ones in kinds.items():
            tests = [one["test"] for one in ones]
            spread = f" ± {stdev(tests):.4f}" if len(tests) > 1 else ""
            name = "no memory" if kind == "none" else kind
            difference = f"{100 * (mean(tests) - reference):+.1f}" if kind != "1" else ""
            steps = ones[0]["validation"][-1][0]
            own, alone = (f"{after(those, steps):.4f}" for those in (ones, kinds["1"]))
            cells = [stream, name, f"{steps:,}", f"{mean(tests):.4f}{spread}", difference, own, alone]
            sys.stdout.write(f"| {' | '.join(cells)} |\n")
        counts = sorted(int(kind) for kind in kinds if kind != "none")
        values = [[one["test"] for one in kinds[f"{count}"]] for count in counts]
        for count, tests in zip(counts, values, strict=True):
            each.plot([count] * len(tests), tests, "o", color="C0", alpha=0.5, markersize=5)
        each.plot(counts, [mean(tests) for tests in values], color="C0", label="with node memory")
        if "none" in kinds:
            without = mean(one["test"] for one in kinds["none"])
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
