"""Figures of what planning found, from the plain values that its JSON files hold. Needs the extra ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.planning.scaling import LOSSES


def check_plot(path: Path) -> None:
    """Raise ConfigError, before anything is computed, where a figure cannot be written to ``path``."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, wanted for figures only
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'disttgl_hpc[plot]', or leave out --plot"
        ) from error
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: no such folder: make it first")
    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".") not in known:
        raise ConfigError(f"{path}: no file type of a figure: end its name in .svg, .png or .pdf")


def plot_captured(record: dict[str, Any], path: Path) -> None:
    """Captured share and age of the memory against the batch size."""
    found = [one for one in record["captured"] if one["age_events"]]
    batches = [one["batch"] for one in record["captured"]]
    figure, (left, right) = _figure(2)
    left.plot(
        batches,
        [one["share"] for one in record["captured"]],
        marker="o",
        markersize=3.5,
        label="captured mails",
    )
    left.plot(
        batches,
        [one["cold"] for one in record["captured"]],
        marker="s",
        markersize=3,
        label="nodes without memory",
    )
    left.set(
        xscale="log",
        xlabel="events of a global batch",
        ylabel="share",
        ylim=(0, 1.02),
        title=record["stream"],
    )
    left.legend(loc="center left")
    levels = {level: [one["age_events"][level] for one in found] for level in ("25 %", "median", "75 %")}
    warm = [one["batch"] for one in found]
    right.fill_between(warm, levels["25 %"], levels["75 %"], alpha=0.25, label="middle half")
    right.plot(warm, levels["median"], marker="o", markersize=3.5, label="median")
    right.set(
        xscale="log", yscale="log", xlabel="events of a global batch", ylabel="age of the memory, events"
    )
    right.legend()
    figure.savefig(path)


def plot_predictions(record: dict[str, Any], path: Path) -> None:
    """Predicted speed over trainers, where a step's time goes with each decade's bottleneck, length of a run."""
    found = record["predicted"]
    trainers = [one["trainers"] for one in found]
    figure, (speed, steps, runs) = _figure(3)
    first = found[0]["events_per_s"] / found[0]["trainers"]
    speed.plot(trainers, [first * number for number in trainers], color="0.6", linestyle="--", label="ideal")
    speed.plot(
        trainers, [one["events_per_s"] for one in found], marker="o", markersize=3.5, label="predicted"
    )
    measured = [(one["trainers"], one["events_per_s"]) for one in record["measured"]]
    speed.plot(*zip(*measured, strict=True), "x", color="black", label="measured")
    speed.set(xscale="log", yscale="log", xlabel="trainers", ylabel="events/s", title=record["stream"])
    speed.legend(loc="upper left")
    parts = {"computing": "compute_s"} | {name: field for field, name in LOSSES.items()}
    shares = {name: [one[field] / one["step_s"] for one in found] for name, field in parts.items()}
    steps.stackplot(trainers, list(shares.values()), labels=list(shares), alpha=0.85)
    steps.set(xscale="log", xlabel="trainers", ylabel="share of a step", ylim=(0, 1))
    steps.set_title("a step, and the bottleneck of each decade")
    steps.legend(loc="lower left", fontsize="small")
    _name_decades(steps, found)
    runs.plot(trainers, [one["run_s"] for one in found], marker="o", markersize=3.5)
    runs.set(xscale="log", yscale="log", xlabel="trainers", ylabel="seconds")
    runs.set_title(f"training {record['epochs']} epochs, in whole sweeps")
    figure.savefig(path)


def _name_decades(axes: Any, found: list[dict[str, Any]]) -> None:
    """Write the bottleneck of each decade's last grid into the decade."""
    largest = {len(str(one["trainers"])): one for one in found}
    for digits, one in largest.items():
        begin = 10 ** (digits - 1)
        axes.axvline(begin, color="0.3", linewidth=0.8, linestyle=":")
        middle = (begin * min(10 * begin, max(one["trainers"], 4 * begin))) ** 0.5
        text = one["bottleneck"].replace(" ", "\n")
        axes.text(middle, 0.98, text, ha="center", va="top", fontsize="small", fontweight="bold")


def _figure(num_axes: int) -> tuple[Any, Any]:
    """A figure with axes side by side; made without pyplot, whose state and display nobody needs here."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.2 * num_axes, 4.2), layout="constrained")
    axes = figure.subplots(1, num_axes)
    for each in axes if num_axes > 1 else (axes,):
        each.grid(alpha=0.3, which="both", linewidth=0.5)
    return figure, axes
