"""Reads what the files of runs tell, for their report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import GridError, StoreError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.planning.captured import captured_events
from disttgl_hpc.report.run_facts import RunFacts
from disttgl_hpc.store.checkpoint_files import step_of
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.output import stem
from disttgl_hpc.training.run_directory import RunDirectory

log = get_logger(__name__)


def read_runs(paths: Sequence[Path]) -> list[RunFacts]:
    """Facts of each run, finished or not. Raises StoreError for what is no run, or whose files are damaged."""
    names = Counter(path.resolve().name for path in paths)
    return [
        read_run(path, path.resolve().name if names[path.resolve().name] == 1 else str(path))
        for path in paths
    ]


def read_run(path: Path, name: str) -> RunFacts:
    """Facts of one run, called ``name``. Events that are not there any more are not looked into."""
    run = RunDirectory(path)
    config, records = run.read_config(), run.records()
    for record in records:
        _check_record(record, run.metrics_file)
    tests = [record for record in records if record["record"] == "test"]
    checkpoints = run.whole_checkpoints
    return RunFacts(
        name=name,
        config=config,
        sweeps=[record for record in records if record["record"] == "sweep"],
        test=tests[-1] if tests else None,
        stream=stem(Path(config["events"])),
        captured=_captured(config),
        trace=_read_trace(run.trace_file),
        last_step=step_of(checkpoints[-1]) if checkpoints else None,
    )


def _check_record(record: dict[str, Any], path: Path) -> None:
    """Raise StoreError for a record whose fields are not of the kind that a report takes them for."""
    numbers = [record.get(name, 0) for name in ("sweep", "step", "events", "loss")]
    tables = [record.get(name, {}) for name in ("validation", "test", "heuristics", "timing")]
    are_numbers = all(isinstance(number, int | float) for number in numbers)
    if not (are_numbers and all(isinstance(table, dict) for table in tables)):
        raise StoreError(f"{path}: a record of a {record['record']} is damaged: restore or delete its line")


def _captured(config: dict[str, Any]) -> list[dict[str, Any]]:
    """What batches of one trainer, and of the run's whole grid, leave of the training events."""
    try:
        stream = EventStore.open(Path(config["events"])).stream
        minibatch = GridShape.parse(str(config.get("grid"))).minibatch
    except (StoreError, GridError) as error:
        log.warning("nothing can be said about staleness: %s", error)
        return []
    local, num_events = config.get("local_batch"), stream.split.train_end
    if not isinstance(local, int) or local < 1:
        return []
    batches = sorted({min(size, num_events) for size in (local, minibatch * local)})
    return [found.as_dict() for found in captured_events(stream.tcsr, num_events, batches)]


def _read_trace(path: Path) -> dict[str, Any] | None:
    """What stands in trace.json, if it is there. Raises StoreError where it is not what training writes."""
    if not path.exists():
        return None
    try:
        trace = json.loads(path.read_text(encoding="utf-8"))
        if trace["otherData"]["kind"] == "disttgl-trace" and all(map(_is_event, trace["traceEvents"])):
            return dict(trace)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise StoreError(f"{path}: must be what train --trace-steps writes, it is not: restore or delete it")


def _is_event(event: dict[str, Any]) -> bool:
    """Whether an event of a trace has what ours have."""
    times = [event.get(name, 0.0) for name in ("ts", "dur")]
    return (
        all(isinstance(event[name], int) for name in ("pid", "tid"))
        and all(isinstance(time, int | float) for time in times)
        and isinstance(event["name"], str)
        and (event["ph"] == "X" or isinstance(event["args"], dict))
    )
