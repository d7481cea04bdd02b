"""The report: one HTML page that loads nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from disttgl_hpc.log import duration
from disttgl_hpc.report.charts import WORK_NAMES, Chart
from disttgl_hpc.report.drawing import NUM_COLORS, draw, style
from disttgl_hpc.report.figures import MOST_RANKS, curves, memory_chart, timeline, work_chart
from disttgl_hpc.report.result_tables import MODEL, results_tables
from disttgl_hpc.report.run_facts import AXES, Group, RunFacts, differences, group_runs

GENERATOR = '<meta name="generator" content="disttgl report">'
"""Marks a page that ``disttgl report`` wrote, which it may overwrite."""
_LEVELS = ("25 %", "median", "75 %", "99 %")


def render_report(runs: Sequence[RunFacts]) -> str:
    """The page about one run, or comparing several."""
    environment = Environment(
        loader=PackageLoader("disttgl_hpc", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "svg": _svg, "shown": _shown}
    groups = group_runs(runs)
    page: dict[str, Any] = {
        "title": runs[0].name if len(runs) == 1 else f"{len(runs)} runs",
        "generator": Markup(GENERATOR),  # noqa: S704 - our own text
        "style": Markup(style()),  # noqa: S704 - our own file
        "runs": runs,
        "groups": groups,
        "color": lambda group: group.color % NUM_COLORS,
        "tiles": _tiles(runs, groups),
        "axes": AXES,
        "curves": curves(groups),
        "results": results_tables(groups),
        "differences": differences(runs),
        "details": [_details(run) for run in runs],
        "work_names": WORK_NAMES,
        "most_ranks": MOST_RANKS,
    }
    return environment.get_template("page.html.jinja").render(page)


def all_charts(runs: Sequence[RunFacts]) -> Iterator[tuple[str, Chart]]:
    """Every chart of the page, with a file name."""
    for axis, charts in curves(group_runs(runs)).items():
        for chart in charts:
            what = chart.title.split(",")[0] if "loss" in chart.title else chart.title
            yield _file_name(f"{what} by {axis}"), chart
    for run in runs:
        of = "" if len(runs) == 1 else f" {run.name}"
        for name, found in (
            ("time by rank", work_chart(run)),
            ("memory by rank", memory_chart(run)),
            ("timeline", timeline(run)),
        ):
            if found is not None:
                yield _file_name(name + of), found


def _file_name(text: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in text.lower()).split())


def _tiles(runs: Sequence[RunFacts], groups: Sequence[Group]) -> list[tuple[str, str]]:
    """The main figures (name, value) of a single run, or of a comparison."""
    if len(runs) > 1:
        tiles = [("runs", f"{len(runs)}"), ("settings compared", f"{len(groups)}")]
        for table in results_tables(groups)[:1]:
            tested = [(cells[0].text, name) for name, kind, cells in table.rows if kind == "test"]
            tiles.append((f"best test {table.columns[0]}, {max(tested)[1]}", max(tested)[0]))
        return tiles
    run = runs[0]
    tiles = []
    for number, table in enumerate(results_tables(groups)):
        of = f", {table.title}" if number else ""
        tiles += [
            (f"test {table.columns[0]}{of}", cells[0].text)
            for name, kind, cells in table.rows
            if (name, kind) == (MODEL, "test")
        ]
    if run.test and "best_sweep" in run.test:
        tiles.append(("best sweep", f"{run.test['best_sweep']}"))
    if run.events_per_s is not None:
        tiles.append(("events a second", f"{run.events_per_s:,.0f}"))
    if run.sweeps:
        tiles.append(("training", duration(run.train_s)))
    if run.peak_mib is not None:
        tiles.append(("peak memory of a rank", f"{run.peak_mib:,.0f} MiB"))
    return tiles


def _details(run: RunFacts) -> dict[str, Any]:
    """Charts and tables of one run."""
    return {
        "run": run,
        "work": work_chart(run),
        "memory": memory_chart(run),
        "timeline": timeline(run),
        "clock_error_us": (run.trace or {}).get("otherData", {}).get("clock_error_us"),
        "captured": [
            (
                f"{one['batch']:,}",
                f"{one['share']:.1%}",
                f"{one['cold']:.1%}",
                [f"{one['age_events'][level]:,.0f}" if one["age_events"] else "–" for level in _LEVELS],
            )
            for one in run.captured
        ],
        "levels": _LEVELS,
    }


def _number(value: float | None, decimals: int = 0) -> str:
    return "–" if value is None else f"{value:,.{decimals}f}"


def _shown(value: Any) -> str:
    """A setting as text."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else f"{value}"


def _svg(chart: Chart) -> Markup:
    return Markup(draw(chart))  # noqa: S704 - draw escapes its texts
