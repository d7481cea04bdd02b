"""Reads the files of runs for their report, and writes records for TensorBoard (the extra ``tensorboard``)."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError, GridError, StoreError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger, printable
from disttgl_hpc.planning.captured import captured_events
from disttgl_hpc.report.run_facts import METRICS, RunFacts, parts_of
from disttgl_hpc.store.checkpoint_files import step_of
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import check_no_link, read_bytes, stem
from disttgl_hpc.training.run_directory import RunDirectory, is_amount

log = get_logger(__name__)


def read_runs(paths: Sequence[Path]) -> list[RunFacts]:
    """Facts of each run, finished or not. Raises StoreError for a folder that is not a run or has damaged files."""
    own_names = [Path(os.path.realpath(path)).name for path in paths]
    return [
        read_run(path, printable(name if own_names.count(name) == 1 else str(path)))
        for path, name in zip(paths, own_names, strict=True)
    ]


def read_run(path: Path, name: str) -> RunFacts:
    """Facts of one run, called ``name``; without captured events if its event store is missing."""
    run = RunDirectory(path)
    config, records = run.read_config(), run.measured_records()
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


def _captured(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Captured events of a local batch and of the run's global batch; empty if the events cannot be read."""
    try:
        stream = EventStore.open(Path(config["events"]), check=True).stream
        minibatch = GridShape.parse(str(config.get("grid"))).minibatch
    except (StoreError, GridError) as error:
        log.warning("the report leaves out staleness: %s", error)
        return []
    local, num_events = config.get("local_batch"), stream.split.train_end
    if not isinstance(local, int) or local < 1:
        return []
    batches = sorted({min(size, num_events) for size in (local, minibatch * local)})
    return [found.as_dict() for found in captured_events(stream.tcsr, num_events, batches)]


def _read_trace(path: Path) -> dict[str, Any] | None:
    """The contents of trace.json, if it exists. Raises StoreError for a file that training did not write."""
    if not path.exists():
        return None
    try:
        trace = json.loads(read_bytes(path))
        if trace["otherData"]["kind"] == "disttgl-trace" and _are_events(trace["traceEvents"]):
            return dict(trace)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        pass
    raise StoreError(f"{path}: not a trace that train --trace-steps wrote: restore or delete it")


def _are_events(events: list[dict[str, Any]]) -> bool:
    """Whether events of a trace have the fields that training writes, with a name for each process and thread."""
    named = {
        (event["name"], event["pid"], event["tid"] if event["name"] == "thread_name" else 0)
        for event in events
        if event["ph"] == "M" and isinstance(event["args"].get("name"), str)
    }
    return all(map(_is_event, events)) and all(
        {("process_name", event["pid"], 0), ("thread_name", event["pid"], event["tid"])} <= named
        for event in events
        if event["ph"] == "X"
    )


def _is_event(event: dict[str, Any]) -> bool:
    """Whether an event has its fields: a name, a span (``X``) with its times, or another that is not shown."""
    about = event.get("args", {})
    if not (all(is_amount(event[name]) for name in ("pid", "tid")) and isinstance(about, dict)):
        return False
    if event["ph"] != "X":
        return event["ph"] == "M" and ("name" not in about or isinstance(about["name"], str))
    needed = {"step"} if event["name"] == "step" else set()
    return (
        isinstance(event["name"], str)
        and is_amount(abs(event["ts"]))
        and is_amount(event["dur"])
        and all(map(is_amount, about.values()))
        and needed <= about.keys()
    )


def check_tensorboard() -> None:
    """Raise ConfigError if TensorBoard's writer is not installed."""
    _writer_class()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs TensorBoard's writer, which is not installed: "
            "pip install 'disttgl_hpc[tensorboard]', or leave it out"
        ) from error
    return SummaryWriter


def write_tensorboard(runs: Sequence[RunFacts], folder: Path) -> None:
    """Write scalars over steps, settings and test results of each run to a folder of its own in ``folder``.

    Loss within sweeps; validation metrics and events/s at the end of each sweep. Raises ConfigError if
    TensorBoard's writer is not installed, StoreError if a run's folder is a symbolic link.
    """
    writer_class = _writer_class()
    for run in runs:
        own = folder / run.name.replace("/", "_")
        check_no_link(own)
        with writer_class(str(own)) as writer:
            for step, loss in zip(*run.curve("loss", "steps"), strict=True):
                writer.add_scalar("loss/training", loss, int(step))
            for number, sweep in enumerate(run.sweeps, 1):
                step = sweep.get("step", number)
                for part, metrics in parts_of(sweep.get("validation") or {}).items():
                    for name, value in metrics.items():
                        writer.add_scalar(_tag("validation", part, name), value, step)
            for step, speed in zip(*run.curve("events_per_s", "steps"), strict=True):
                writer.add_scalar("speed/events_per_s", speed, int(step))
            writer.add_text(
                "settings", "\n".join(f"    {name}: {value}" for name, value in run.config.items())
            )
            for part, metrics in parts_of((run.test or {}).get("test") or {}).items():
                for name, value in metrics.items():
                    writer.add_scalar(_tag("test", part, name), value, 0)


def _tag(split: str, part: str, name: str) -> str:
    return "/".join([split, *([part] if part else []), METRICS[name]])
