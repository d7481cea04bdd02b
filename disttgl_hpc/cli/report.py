"""``disttgl report``: an HTML report about runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from disttgl_hpc.cli import one_process, print_done
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.report.drawing import check_plot, draw, save_charts
from disttgl_hpc.report.page import GENERATOR, all_charts, render_report
from disttgl_hpc.report.run_facts import RunFacts
from disttgl_hpc.report.run_files import check_tensorboard, read_runs, write_tensorboard
from disttgl_hpc.store.files import write_text

_EXAMPLES = """\b
Examples:
  disttgl report runs/flights
  disttgl report runs/seed-0 runs/seed-1 runs/seed-2 runs/linear -o compared.html
  disttgl report runs/flights --plots figures --format png
  disttgl report runs/flights --tensorboard board
"""


@click.command(epilog=_EXAMPLES)
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="HTML file.  [default: report.html in the first run]",
)
@click.option(
    "--plots", type=click.Path(file_okay=False, path_type=Path), help="Folder for the charts as files."
)
@click.option(
    "--format",
    "file_type",
    type=click.Choice(("svg", "png", "pdf")),
    default="svg",
    help="File format of --plots.",
)
@click.option(
    "--tensorboard", type=click.Path(file_okay=False, path_type=Path), help="Folder for TensorBoard files."
)
@one_process
def report(
    runs: tuple[Path, ...],
    output: Path | None,
    plots: Path | None,
    file_type: str,
    tensorboard: Path | None,
) -> None:
    """Write an HTML page about RUNS: curves, results, time by phase, memory, staleness, timeline.

    The page is a single file that loads nothing else. Runs may be finished, unfinished or killed. Several
    runs are compared, and runs that differ only in the seed are grouped. A timeline is shown for runs with
    --trace-steps.
    """
    if tensorboard is not None:
        check_tensorboard()
    page = output or runs[0] / "report.html"
    try:
        _check_page(page)
        if plots is not None:
            plots.mkdir(parents=True, exist_ok=True)
            if file_type != "svg":
                check_plot(plots / f"chart.{file_type}")
        facts = read_runs(runs)
        write_text(page, render_report(facts))
        print_done(f"{page}: {page.stat().st_size / 1024:,.0f} KiB")
        if plots is not None:
            _save_charts(facts, plots, file_type)
        if tensorboard is not None:
            write_tensorboard(facts, tensorboard)
            print_done(f"{tensorboard}: tensorboard --logdir {tensorboard}")
    except OSError as error:
        where = error.filename or page
        raise StoreError(f"{where}: cannot be written ({error.strerror}): choose another place") from error


def _check_page(page: Path) -> None:
    """Raise ConfigError if the file exists and is not a report."""
    if page.exists() and not page.is_file():
        raise ConfigError(f"{page}: exists and is not a file: choose another name with -o")
    if page.exists() and GENERATOR.encode() not in page.read_bytes()[:2000]:
        raise ConfigError(f"{page}: exists and is not a report: choose another name with -o")


def _save_charts(facts: Sequence[RunFacts], folder: Path, file_type: str) -> None:
    """Write every chart of the page to its own file."""
    charts = dict(all_charts(facts))
    for name, chart in charts.items():
        path = folder / f"{name}.{file_type}"
        if file_type == "svg":
            write_text(path, draw(chart, standalone=True))
        else:
            save_charts([chart], path)
    print_done(f"{folder}: {len(charts)} charts")
