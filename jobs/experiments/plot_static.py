"""Plot test MRR of runs with and without static memory, and print it as a table.

python plot_static.py FOLDER RUN [RUN ...]     a run is STREAM/KIND-sSEED; FOLDER gets static.json and static.svg

Runs of a stream and kind must differ in the seed alone, and those of a stream must be of as many passes.
"""

import json
import sys
from pathlib import Path
from statistics import mean, stdev

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from records import RunRecords, by_stream_and_kind

OF_A_RUN = {"seed", "events", "batches", "static", "static_memory", "threads", "prefetch", "timeout_s"}
OF_A_RUN |= {"checkpoint_steps", "checkpoint_minutes", "keep_checkpoints", "trace_steps", "trace_after"}
OF_A_STREAM = {"checksum", "epochs", "evaluation_events"}


def check_alike(runs: list[Path]) -> None:
    """End with a message where runs that are set side by side, or averaged, are of different settings."""
    groups: dict[Path, tuple[Path, dict]] = {}
    for run in map(RunRecords, runs):
        own = run.config
        stream = run.path.parent
        for group, names in ((stream, OF_A_STREAM), (stream / run.kind, own.keys() - OF_A_RUN)):
            first, theirs = groups.setdefault(group, (run.path, own))
            differ = [
                f"{name} {theirs[name]}, {own[name]}"
                for name in sorted(names & theirs.keys())
                if theirs[name] != own[name]
            ]
            if differ:
                sys.exit(
                    f"{first}, {run.path}: differ in {'; '.join(differ)}: move away what is not to be compared"
                )


def figures(run: RunRecords) -> dict:
    """What static.json keeps of a run."""
    return {
        "seed": run.seed,
        "test": run.test_mrr,
        "validation": run.final["validation"]["mrr"],
        "test_ap": run.final["test"]["average_precision"],
        "best_sweep": run.final["best_sweep"],
        "loss": run.sweeps[-1]["loss"],
        "heuristics": run.heuristics,
    }


def row(stream: str, kind: str, found: list[dict], without: dict[int, float]) -> str:
    """A line of the table; the gain is over the run of the same seed without static memory."""
    tests = [one["test"] for one in found]
    gains = [100 * (one["test"] - without[one["seed"]]) for one in found if one["seed"] in without]
    spread = f" ± {stdev(tests):.4f}" if len(tests) > 1 else ""
    gain = f"{mean(gains):+.1f}" if gains and kind != "none" else ""
    better = f"{sum(gain > 0 for gain in gains)} of {len(gains)}" if gain else ""
    validation, loss = (mean(one[name] for one in found) for name in ("validation", "loss"))
    cells = [stream, kind, f"{mean(tests):.4f}{spread}", gain, better, f"{validation:.4f}", f"{loss:.4f}"]
    return f"| {' | '.join(cells)} |\n"


def main(folder: Path, runs: list[Path]) -> None:
    """Write the figures and the plot, and a table to standard output."""
    check_alike(runs)
    found = {
        stream: {kind: [figures(run) for run in own] for kind, own in kinds.items()}
        for stream, kinds in by_stream_and_kind(runs).items()
    }
    (folder / "static.json").write_text(json.dumps(found, indent=2) + "\n")
    sys.stdout.write(
        "| stream | static memory | test MRR | gain, points | seeds better | validation MRR | loss |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    figure, axes = plt.subplots(
        1, len(found), figsize=(3.6 * len(found), 3.8), squeeze=False, layout="constrained"
    )
    for each, (stream, kinds) in zip(axes[0], found.items(), strict=True):
        without = {one["seed"]: one["test"] for one in kinds.get("none", [])}
        for place, (kind, ones) in enumerate(kinds.items()):
            sys.stdout.write(row(stream, kind, ones, without))
            tests = [one["test"] for one in ones]
            each.plot([place] * len(tests), tests, "o", color=f"C{place}", alpha=0.6, markersize=5)
            each.plot([place - 0.25, place + 0.25], [mean(tests)] * 2, color=f"C{place}", linewidth=2)
        best = max(next(iter(kinds.values()))[0]["heuristics"].items(), key=lambda one: one[1])
        each.axhline(
            best[1], color="0.5", linewidth=0.8, linestyle="--", label=f"{best[0]}".replace("_", " ")
        )
        each.set_xticks(range(len(kinds)), kinds, rotation=30, ha="right")
        each.set(title=stream, ylabel="test MRR")
        each.legend(fontsize="small")
        each.grid(alpha=0.3, axis="y")
    figure.savefig(folder / "static.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
