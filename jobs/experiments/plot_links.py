"""Plot test MRR of several streams beside heuristics and other programs, and print the table of the README.

python plot_links.py FOLDER RUN [RUN ...]     a run is STREAM/plain-sSEED or STREAM/pairs-sSEED

FOLDER gets links.svg.
"""

import sys
from pathlib import Path
from statistics import mean

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from records import RunRecords, by_stream_and_kind

TITLES = {
    "wikipedia": "Wikipedia",
    "collegemsg": "CollegeMsg",
    "mathoverflow": "MathOverflow",
    "flights": "flights",
}
HEURISTICS = {
    "edgebank_unlimited": "EdgeBank",
    "edgebank_windowed": "windowed EdgeBank",
    "poptrack": "PopTrack",
    "pair_recency": "pair recency",
}
OTHER_PROGRAMS = {
    "wikipedia": {"TGL": 0.781, "PyG": 0.743},
    "collegemsg": {"TGL": 0.435, "PyG": 0.290},
    "mathoverflow": {"PyG": 0.557},
    "flights": {"PyG": 0.507},
}
"""Test MRR of their own TGNs by the same protocol, one seed (TGL: two); docs/benchmarks.md says how they ran."""


def best_heuristic(run: RunRecords) -> tuple[str, float]:
    """Name and test MRR."""
    return max(run.heuristics.items(), key=lambda one: one[1])


def shown(runs: list[RunRecords]) -> str:
    """Mean over the seeds, and the lowest and highest of them."""
    values = [run.test_mrr for run in runs]
    return f"{mean(values):.3f} ({min(values):.3f}–{max(values):.3f})"


def main(folder: Path, runs: list[Path]) -> None:
    """Write the plot, and the table to standard output."""
    found = by_stream_and_kind(runs)
    sys.stdout.write("| stream | epochs | TGN | with `--pair-features` | best heuristic | other TGNs |\n")
    sys.stdout.write("|---|---|---|---|---|---|\n")
    for stream, kinds in found.items():
        name, best = best_heuristic(kinds["plain"][0])
        others = ", ".join(f"{mrr:.3f} ({program})" for program, mrr in OTHER_PROGRAMS[stream].items())
        cells = [TITLES[stream], f"{kinds['plain'][0].config['epochs']}", shown(kinds["plain"])]
        cells += [shown(kinds["pairs"]), f"{best:.3f} ({HEURISTICS[name]})", others]
        sys.stdout.write(f"| {' | '.join(cells)} |\n")

    bars = {
        "best other TGN": ("0.75", [max(OTHER_PROGRAMS[stream].values()) for stream in found]),
        "best heuristic": ("0.5", [best_heuristic(kinds["plain"][0])[1] for kinds in found.values()]),
        "disttgl_hpc": ("C0", [mean(run.test_mrr for run in kinds["plain"]) for kinds in found.values()]),
        "with --pair-features": ("C1", [mean(run.test_mrr for run in k["pairs"]) for k in found.values()]),
    }
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    width = 0.8 / len(bars)
    for number, (label, (color, values)) in enumerate(bars.items()):
        places = [place + (number - (len(bars) - 1) / 2) * width for place in range(len(found))]
        drawn = axes.bar(places, values, width, color=color, label=label)
        axes.bar_label(drawn, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(found)), [TITLES[stream] for stream in found])
    axes.set(ylabel="test MRR, 49 random negatives", ylim=(0, 1))
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    figure.savefig(folder / "links.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
