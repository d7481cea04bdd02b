"""Figures of what planning found, from the plain values that its JSON files hold. Needs the extra ``plot``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError


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


def _figure(num_axes: int) -> tuple[Any, Any]:
    """A figure with axes side by side; made without pyplot, whose state and display nobody needs here."""
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(5.2 * num_axes, 4.2), layout="constrained")
    axes = figure.subplots(1, num_axes)
    for each in axes if num_axes > 1 else (axes,):
        each.grid(alpha=0.3, which="both", linewidth=0.5)
    return figure, axes
