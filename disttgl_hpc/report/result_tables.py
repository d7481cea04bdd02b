"""Results as a person reads them.

Results as rows: each model, as mean and spread over seeds, beside what it must beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from disttgl_hpc.report.run_facts import METRICS, MODELS, PARTS, Group, Record, RunFacts, parts_of
from disttgl_hpc.text import aligned

_LINK_COLUMNS = ("mrr", "hits_at_10", "average_precision", "roc_auc")


_CLASS_COLUMNS = ("f1_micro", "f1_macro", "accuracy", "roc_auc", "average_precision")


_HEAD_COLUMNS = ("roc_auc", "average_precision")


def results_table(record: dict[str, Any]) -> str:
    """Tables of a test record: the model beside what it must beat, on the same events and candidates.

    Links; links with nodes that training has not seen, where test has some; classes: whatever the task tells.
    """
    parts = {"TGN (validation)": record["validation"], "TGN (test)": record["test"]}
    tables = []
    if "heuristics" in record:
        tables += _link_tables(record, parts | record["heuristics"])
    if "baselines" in record:
        classes = {name: metrics["classes"] for name, metrics in parts.items()} | record["baselines"]
        tables.append(
            [
                *_metrics_table(classes, _CLASS_COLUMNS),
                f"{record['test']['classes']['num_events']:,} test events.",
            ]
        )
    tables[-1][-1] += f" Weights of sweep {record['best_sweep']}, the best on validation."
    return "\n\n".join("\n".join(table) for table in tables)


def _link_tables(record: dict[str, Any], rows: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Lines of one table of all test events, and of one of those with new nodes if there are any."""
    test = record["test"]
    text = (
        f"{test['num_events']:,} test events, each ranked among {record['evaluation_negatives']} "
        f"{record['evaluation_strategy']} negatives, ties at mid-rank; heuristics on test."
    )
    tables = [[*_metrics_table(rows, _LINK_COLUMNS), text]]
    if "inductive" in test:
        new = test["inductive"]
        own = {name: metrics["inductive"] for name, metrics in rows.items() if "inductive" in metrics}
        text = (
            f"Those {new['num_events']:,} of them with an end that training has not seen: {new['new_sources']:,} "
            f"new sources, {new['new_destinations']:,} new destinations."
        )
        tables.append([*_metrics_table(own, _LINK_COLUMNS), text])
    return tables


def heads_table(record: dict[str, Any]) -> str:
    """Table of what :func:`~.runs.classify.classify` found: mean and spread over heads, baselines on test."""
    rows = {
        f"TGN ({part})": {
            column: [head[part][column] for head in record["heads"] if column in head[part]]
            for column in _HEAD_COLUMNS
        }
        for part in ("validation", "test")
    }
    rows |= {
        MODELS.get(name, name): {column: [metrics[column]] for column in _HEAD_COLUMNS if column in metrics}
        for name, metrics in record["baselines"].items()
    }
    lines = aligned(
        [["", *(METRICS[column] for column in _HEAD_COLUMNS)]]
        + [
            [name, *(_mean_and_spread(found.get(column, [])) for column in _HEAD_COLUMNS)]
            for name, found in rows.items()
        ]
    )
    counts = ", ".join(f"{count} in {name}" for name, count in record["positives"].items())
    return "\n".join([*lines, f"{len(record['heads'])} heads; events whose source has the state: {counts}."])


def _mean_and_spread(values: list[float]) -> str:
    """Mean, and standard deviation of several."""
    if not values:
        return "–"
    return f"{fmean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def _metrics_table(rows: dict[str, dict[str, Any]], columns: Sequence[str]) -> list[str]:
    """A line for each row's metrics, below the titles of those columns that some row has."""
    shown = [column for column in columns if any(column in row for row in rows.values())]
    names = {name: MODELS.get(name, name) for name in rows}
    width = max(map(len, names.values()))
    lines = [" " * width + "".join(f"{METRICS[column]:>10}" for column in shown)]
    for name, metrics in rows.items():
        values = (f"{metrics[column]:10.4f}" if column in metrics else f"{'–':>10}" for column in shown)
        lines.append(f"{names[name]:<{width}}" + "".join(values))
    return lines


def _milliseconds_a_step(name: str) -> Callable[[dict[str, Any], int], str]:
    """Mean over trainers of a list of seconds, for one step."""
    return lambda entry, steps: f"{1e3 * fmean(entry[name]) / steps:.2f}"


_SCALING: tuple[tuple[str, str, Callable[[dict[str, Any], int], str]], ...] = (
    ("", "grid", lambda entry, _: entry["grid"] + ("*" if entry["oversubscribed"] else " ")),
    ("", "trainers", lambda entry, _: f"{entry['trainers']}"),
    ("", "daemons", lambda entry, _: f"{entry['daemons']}"),
    ("", "events/s", lambda entry, _: f"{entry['events_per_s']:,.0f}"),
    ("", "speed-up", lambda entry, _: f"{entry['speed_up']:.2f}"),
    ("CPU-µs", "trainers", lambda entry, _: f"{entry['trainer_cpu_us']:.1f}"),
    ("an event", "daemons", lambda entry, _: f"{entry['daemon_cpu_us']:.2f}"),
    ("daemon of", "a trainer", lambda entry, _: f"{entry['daemon_share']:.2%}"),
    ("waiting,", "memory", _milliseconds_a_step("memory_wait_s")),
    ("ms a step", "gradients", _milliseconds_a_step("gradient_wait_s")),
    ("", "share", lambda entry, _: f"{entry['waiting_share']:.1%}"),
    ("bytes a step", "gradients", lambda entry, _: f"{entry['gradient_bytes']:,.0f}"),
    ("", "TCP", lambda entry, _: f"{entry['tcp_bytes']:,.0f}"),
)


_LOADER: tuple[tuple[str, str, Callable[[dict[str, Any]], str]], ...] = (
    ("", "graphs", lambda way: way["graphs"]),
    ("", "prefetch", lambda way: f"{way['prefetch']}"),
    ("µs an event:", "batch", lambda way: f"{way['sample_us']:.2f}"),
    ("", "memory", lambda way: f"{way['read_us']:.2f}"),
    ("", "inputs", lambda way: f"{way['inputs_us']:.2f}"),
    ("", "step", lambda way: f"{way['step_us']:.1f}"),
    ("loading,", "of a step", lambda way: f"{way['loading_share']:.1%}"),
    ("CPU-µs", "an event", lambda way: f"{way['cpu_us']:.1f}"),
)


def loader_table(record: dict[str, Any]) -> str:
    """Table of what :func:`~.runs.bench_loader.measure_loader` found: a row for each way of loading."""
    rows = [[group for group, _, _ in _LOADER], [title for _, title, _ in _LOADER]]
    rows += [[show(way) for _, _, show in _LOADER] for way in record["ways"]]
    return "\n".join(
        [
            *aligned(rows),
            f"Medians of {record['rounds']} rounds of {record['steps']} steps after {record['warmup']}: what the "
            "trainer waits for on its own path. CPU time is that of all its threads.",
            f"{record['stream']} on {record['machine']['processor']}; {_versions(record)}.",
        ]
    )


def training_table(record: dict[str, Any]) -> str:
    """Table of what :func:`~.runs.bench_train.measure_training` found: phases, floor, and the other program."""
    own, floor = record["own"], record["floor"]
    phases = [name for name in own if name.endswith("_us") and name != "cpu_us"]
    rows = [["CPU-µs an event", *(name.removesuffix("_us") for name in phases), "all", "events/s"]]
    rows.append(["disttgl", *(f"{own[name]:.1f}" for name in phases), *_speed(own)])
    if "pyg" in record:
        rows.append(["PyTorch Geometric", *("" for _ in phases), *_speed(record["pyg"])])
    lines = [
        *aligned(rows),
        f"Floor: {floor['cpu_us']:.1f} CPU-µs: {floor['product_mflop']:.2f} MFLOP of products in "
        f"{floor['products_us']:.1f}, {floor['slot_mflop']:.2f} MFLOP over neighbours in {floor['slots_us']:.1f} "
        f"(one thread: {floor['gflops']:.0f} GFLOP/s), {floor['kilobytes']:.1f} kB in {floor['bytes_us']:.1f} "
        f"({floor['copy_gb_s']:.1f} GB/s). Peak memory {record['peak_rss_mib']:.0f} MiB.",
        f"Medians of {record['rounds']} rounds of {record['steps']} steps after {record['warmup']}.",
        f"{record['stream']} on {record['machine']['processor']}; {_versions(record)}.",
    ]
    if "ratio" in record:
        lines.insert(
            -2, f"PyTorch Geometric's TGN needs {record['ratio']:.2f} times the CPU time, round by round."
        )
    return "\n".join(lines)


def _speed(figures: dict[str, float]) -> tuple[str, str]:
    return f"{figures['cpu_us']:.1f}", f"{figures['events_per_s']:,.0f}"


def _versions(record: dict[str, Any]) -> str:
    """Versions of what a measurement ran on."""
    return ", ".join(f"{name} {number}" for name, number in record["machine"]["versions"].items())


def scaling_table(record: dict[str, Any]) -> str:
    """Table of what :func:`~.runs.bench.measure_scaling` found: a row for each grid, and what it ran on."""
    rows = [[group for group, _, _ in _SCALING], [title for _, title, _ in _SCALING]]
    rows += [[show(entry, record["steps"]) for _, _, show in _SCALING] for entry in record["grids"]]
    lines = aligned(rows)
    machine, rounds = record["machine"], len(record["grids"][0]["rounds"])
    lines += [
        f"Medians of {rounds} rounds of {record['steps']} steps after {record['warmup']}; speed-up over the first "
        "row, round by round. An event counts each time it is trained. *: more threads of trainers than cores.",
        f"{record['stream']} on {machine['processor']}: {machine['ranks']} ranks on {machine['cores']} cores of "
        f"{machine['nodes']} node{'' if machine['nodes'] == 1 else 's'}; {_versions(record)}.",
    ]
    return "\n".join(lines)


MODEL = "TGN"


@dataclass(frozen=True)
class Cell:
    """A metric as text, and whether it is the best of its column on test."""

    text: str
    is_best: bool = False


@dataclass(frozen=True)
class ResultsTable:
    """title: of what. columns: of metrics. rows: (name, kind, cells), kind one of validation, test, heuristic."""

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[Cell]]]


_Row = tuple[str, str, dict[str, list[float]]]


def results_tables(groups: Sequence[Group]) -> list[ResultsTable]:
    """A table for each part of PARTS, and others, that some finished run has."""
    tested = [(group, [run for run in group.runs if run.test]) for group in groups]
    tested = [(group, runs) for group, runs in tested if runs]
    parts = dict.fromkeys(part for _, runs in tested for run in runs for part in parts_of(_test(run)["test"]))
    return [_table(part, tested) for part in parts]


def _test(run: RunFacts) -> Record:
    return {"test": {}, "validation": {}} | (run.test or {})


def _table(part: str, tested: Sequence[tuple[Group, Sequence[RunFacts]]]) -> ResultsTable:
    rows: list[_Row] = []
    besides: dict[str, _Row] = {}
    for group, runs in tested:
        for kind in ("validation", "test"):
            values = [parts_of(_test(run)[kind]).get(part, {}) for run in runs]
            name = MODEL if len(tested) == 1 else group.name
            rows.append(
                (name, kind, {metric: [one[metric] for one in values if metric in one] for metric in METRICS})
            )
        for run in runs:
            for name, metrics in _besides(_test(run), part).items():
                title = MODELS.get(name, name)
                streams = {other.stream for _, others in tested for other in others}
                title += f", {run.stream}" if len(streams) > 1 else ""
                besides.setdefault(title, (title, "heuristic", {m: [v] for m, v in metrics.items()}))
    rows += besides.values()
    columns = [metric for metric in METRICS if any(values.get(metric) for _, _, values in rows)]
    best = {
        column: max(
            (fmean(v[column]) for _, kind, v in rows if kind != "validation" and v.get(column)), default=None
        )
        for column in columns
    }
    return ResultsTable(
        PARTS.get(part, part),
        [METRICS[column] for column in columns],
        [
            (name, kind, [_cell(values.get(column, []), kind, best[column]) for column in columns])
            for name, kind, values in rows
        ],
    )


def _besides(test: Record, part: str) -> dict[str, dict[str, Any]]:
    """Metrics of what stands beside the model: heuristics of links, or baselines of classes."""
    if part == "classes":
        return {name: parts_of(found).get("", {}) for name, found in test.get("baselines", {}).items()}
    found = {name: parts_of(values).get(part, {}) for name, values in test.get("heuristics", {}).items()}
    return {name: metrics for name, metrics in found.items() if metrics}


def _cell(values: Sequence[float], kind: str, best: float | None) -> Cell:
    if not values:
        return Cell("–")
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    return Cell(f"{fmean(values):.4f}{spread}", kind != "validation" and fmean(values) == best)
