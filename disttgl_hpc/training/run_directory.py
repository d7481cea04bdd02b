"""The run directory: config.json, metrics.jsonl and checkpoints."""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.log import get_logger
from disttgl_hpc.planning.run_plan import Before
from disttgl_hpc.sampling.local_batch import SAMPLING_VERSION
from disttgl_hpc.store.checkpoint_files import (
    check_no_file,
    checkpoint_folder,
    checkpoint_folders,
    has_manifest,
    part_path,
    remove_checkpoint,
    step_of,
)
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import (
    check_no_link,
    check_types,
    open_no_link,
    read_bytes,
    remove_folder,
    write_errors,
    write_text,
)
from disttgl_hpc.training.run_events import static_settings

log = get_logger(__name__)

_MAKE_ROOM = "free disk space, or restore the run directory"
_WHERE = "evaluate RUN --events EVENTS, train EVENTS --resume RUN"


@dataclass(frozen=True)
class Best:
    """The best sweep on validation: the step of its checkpoint, its number, and its score (higher is better)."""

    step: int
    sweep: int
    score: float


class RunDirectory:
    """Files of one run. Only rank 0 writes, but for the parts of checkpoints, which each node writes itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.trace_file = path / "trace.json"
        self.checkpoints = path / "checkpoints"
        self.memory_file = path / "memory.h5"
        self._lock_file = path / "lock"

    @property
    def whole_checkpoints(self) -> list[Path]:
        """Folders of checkpoints that all nodes have completed, the newest last, without a look at the parts."""
        return [folder for folder in checkpoint_folders(self.checkpoints) if has_manifest(folder)]

    @property
    def last_checkpoint(self) -> Path:
        """File with weights, optimiser and replica 0's memory of the newest checkpoint. Raises StoreError."""
        folders = self.whole_checkpoints
        if not folders:
            raise StoreError(f"{self.path}: the run has no checkpoint yet: train it further")
        return part_path(folders[-1], 0)

    @property
    def best_checkpoint(self) -> Path:
        """The same of the best sweep's checkpoint. Raises StoreError if no sweep has been validated yet."""
        return part_path(checkpoint_folder(self.checkpoints, self.read_best().step), 0)

    def check_free(self) -> None:
        """Raise ConfigError if the directory holds a run; asked on every rank before any of them writes."""
        holds_records = self.metrics_file.exists() and self.metrics_file.stat().st_size
        if holds_records or self.whole_checkpoints:
            self.check_idle()
            raise ConfigError(
                f"{self.path} already has a run: choose another --run, remove it, or continue it with --resume"
            )
        if any(place.exists() and not place.is_dir() for place in (self.path, *self.path.parents)):
            raise ConfigError(f"{self.path}: a part of this path is a file: choose another --run")

    def check_idle(self) -> None:
        """Raise ConfigError if a job is training in the directory now."""
        try:
            handle = open_no_link(str(self._lock_file), os.O_RDONLY)
        except OSError:  # no job has made it
            return
        try:
            self._lock(handle, fcntl.LOCK_SH)
        finally:
            os.close(handle)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, and keep other jobs out of it while the context lasts.

        The kernel lets go of a lock when its process is killed. Raises StoreError where the directory cannot
        be made or has symbolic links for parts of its own, ConfigError if a job is training in it now.
        """
        try:
            check_no_link(self.checkpoints)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            check_no_file(self.checkpoints)
            handle = open_no_link(str(self._lock_file), os.O_WRONLY | os.O_CREAT)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be made ({error.filename}: {error.strerror}): remove what is there, or choose "
                "another --run"
            ) from error
        try:
            self._lock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int, kind: int) -> None:
        """Lock a file unless its file system has no locks. Raises ConfigError if another job has locked it."""
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{self.path}: a job is training this run now: wait for its end, or choose another --run"
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): start no second job on it", self.path, error.strerror)

    def begin(self, config: dict[str, Any], step: int, before: Before) -> None:
        """Write config.json, and forget all records and checkpoints that came after ``step``.

        before: training on other grids or events. If the last sweep of it was not validated, it gets a record
        without metrics, so that sweeps are recorded without gaps. Raises StoreError.
        """
        kept = [record for record in self.sweeps() if record["step"] <= step]
        if not before.same_events and len(kept) < before.sweeps:
            best = {name: value for name, value in (kept or [{}])[-1].items() if name == "best"}
            kept.append({"record": "sweep", "sweep": before.sweeps, "step": before.steps} | best)
        for folder in checkpoint_folders(self.checkpoints):
            if step_of(folder) > step or not has_manifest(folder):
                with write_errors(folder, "remove it"):
                    remove_checkpoint(folder)
        _write(self.metrics_file, "".join(json.dumps(record) + "\n" for record in kept))
        _write(self.config_file, json.dumps(config, indent=2) + "\n")

    def remove(self) -> None:
        """Remove the run's files, and the directory unless it has files of others. Raises OSError, StoreError."""
        check_no_link(self.path)
        check_no_link(self.checkpoints)
        for folder in checkpoint_folders(self.checkpoints):
            remove_checkpoint(folder)
        remove_folder(self.checkpoints, "(?!)")
        names = (self.config_file, self.metrics_file, self.trace_file, self.memory_file, self._lock_file)
        remove_folder(self.path, "|".join(re.escape(path.name) for path in names))

    def best(self) -> Best | None:
        """The best sweep until now; None if no sweep has been validated. Raises StoreError for damaged records."""
        lines = [*enumerate(self._lines(), 1)]
        for number, line in reversed(lines):  # the last one is enough, and they are long
            record = self._record(number, line)
            if record["record"] == "sweep":
                return self.best_of(record)
        return None

    def best_of(self, record: dict[str, Any]) -> Best | None:
        """The best sweep until one of :meth:`sweeps`; None if none was validated. Raises StoreError."""
        if "best" not in record and "validation" not in record:
            return None
        try:
            best = Best(**record["best"])
            check_types(best)
            if math.isfinite(best.score):
                return best
        except (LookupError, TypeError, ValueError):
            pass
        raise StoreError(
            f"{self.metrics_file}: the record of sweep {record.get('sweep')} must name the best sweep, it does not: "
            "restore the file, or train the run again"
        )

    def read_best(self) -> Best:
        """As :meth:`best`. Raises StoreError also if no sweep has been validated yet."""
        best = self.best()
        if best is None:
            raise StoreError(f"{self.path}: the run has finished no sweep yet: train it further")
        return best

    def read_config(self) -> dict[str, Any]:
        """What :meth:`begin` wrote. Raises StoreError when it is not there, or is nothing of the kind."""
        try:
            config = json.loads(read_bytes(self.config_file))
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{self.config_file}: no run's configuration: give a run directory") from error
        if not isinstance(config, dict):
            raise StoreError(f"{self.config_file}: expected a JSON object, found {type(config).__name__}")
        for name in ("events", "checksum", "batches"):
            if not isinstance(config.get(name, "" if name == "batches" else None), str):
                raise StoreError(f"{self.config_file}: must name the run's {name}, it does not: restore it")
        return config

    def record(self, kind: str, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and make it durable. Raises StoreError."""
        with (
            write_errors(self.metrics_file, _MAKE_ROOM),
            open(self.metrics_file, "a", encoding="utf-8", opener=open_no_link) as file,
        ):
            file.write(json.dumps({"record": kind, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_trace(self, trace: dict[str, Any]) -> None:
        """Write trace.json, in place of one of an earlier job. Raises StoreError."""
        _write(self.trace_file, json.dumps(trace, separators=(",", ":")) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a job that was killed may have left half a line at the end.

        Raises StoreError if a line is not a record, or the file cannot be read.
        """
        return [self._record(number, line) for number, line in enumerate(self._lines(), 1)]

    def measured_records(self) -> list[dict[str, Any]]:
        """As :meth:`records`, with every metric table and timing checked. Raises StoreError."""
        found = self.records()
        for number, record in enumerate(found, 1):
            if not _is_measured(record):
                raise StoreError(
                    f"{self.metrics_file}, line {number}: the record of a {record['record']} is damaged: restore it"
                )
        return found

    def sweeps(self) -> list[dict[str, Any]]:
        """Records of sweeps, which are numbered from 1. Raises StoreError if one is missing or damaged."""
        found = [record for record in self.measured_records() if record["record"] == "sweep"]
        for number, record in enumerate(found, 1):
            if record.get("sweep") != number or type(record.get("step")) is not int:
                raise StoreError(
                    f"{self.metrics_file}: the record of sweep {number} is missing or damaged: restore the file, or "
                    "begin another run"
                )
        return found

    def _lines(self) -> list[bytes]:
        """The whole lines of metrics.jsonl. Raises StoreError."""
        try:
            return read_bytes(self.metrics_file).split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(
                f"{self.metrics_file}: cannot be read ({error.strerror}): restore it, or begin another run"
            ) from error

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        """A line of metrics.jsonl. Raises StoreError if it is not a record."""
        try:
            record = json.loads(line)
            if isinstance(record["record"], str) and isinstance(record.get("step", 0), int):
                return dict(record)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        raise StoreError(f"{self.metrics_file}, line {number}: must be a record, it is none: restore it")


def is_amount(value: Any) -> bool:
    """Whether a JSON value is a number from 0 to 10¹⁸."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1e18


def _is_measured(record: dict[str, Any]) -> bool:
    """Whether fields of a record that are shown have the types with which training writes them."""
    amounts = [record.get(name, 0) for name in ("sweep", "step", "events")]
    tables = [record.get(name, {}) for name in ("validation", "test", "timing", "heuristics", "baselines")]
    return (
        all(map(is_amount, amounts))
        and _is_loss(record.get("loss", 0.0))
        and all(isinstance(table, dict) for table in tables)
        and all(isinstance(metrics, dict) for table in tables[-2:] for metrics in table.values())
        and _is_timing(record.get("timing", {}))
    )


def _is_timing(timing: dict[str, Any]) -> bool:
    """Whether seconds and columns of a record's timing are as training writes them."""
    course, *ranks = (timing.get(name, {}) for name in ("course", "trainers", "daemons"))
    return (
        all(is_amount(timing.get(name, 0)) for name in ("train_s", "evaluate_s", "events_per_s"))
        and _has_columns(course, {"step", "loss"})
        and all(_has_columns(table, {"rank", "resident_mib", "peak_mib"}) for table in ranks)
        and all(("train" in table) == ("evaluate" in table) for table in ranks)
    )


def _has_columns(table: Any, names: set[str]) -> bool:
    """Whether a table is empty, or has these and possibly other columns of equally many numbers."""
    if not (isinstance(table, dict) and all(isinstance(column, list) for column in table.values())):
        return False
    are_numbers = all(
        _is_loss(value) if name == "loss" else is_amount(value)
        for name, column in table.items()
        for value in column
    )
    return not table or (are_numbers and names <= table.keys() and len({*map(len, table.values())}) == 1)


def _is_loss(value: Any) -> bool:
    """Whether a JSON value is a loss, which an older run may have recorded as NaN or infinite."""
    return is_amount(value) or (isinstance(value, float) and not math.isfinite(value))


def run_settings(store: EventStore, config: TrainConfig, batches: Path | None = None) -> dict[str, Any]:
    """What config.json says of a run: its inputs, where its training events end, every setting as it was chosen.

    A batch store needs no checksum here: it is of the same events or is refused, and changes no result.
    """
    inputs: dict[str, Any] = {"events": os.path.realpath(store.path), "checksum": store.checksum}
    if batches is not None:
        inputs["batches"] = os.path.realpath(batches)
    inputs |= {"train_end": store.stream.split.train_end, "sampling_version": SAMPLING_VERSION}
    return {**inputs, **config.as_dict(), **static_settings(config)}


def saved_config(settings: dict[str, Any]) -> TrainConfig:
    """The TrainConfig in what :func:`run_settings` gave."""
    names = [setting.name for setting in fields(TrainConfig)]
    return train_config({name: settings[name] for name in names if name in settings})


def open_events(path: Path, checksum: str) -> EventStore:
    """The events that a run was made with. Raises StoreError where they are not these."""
    if not os.path.exists(path):
        raise StoreError(f"{path}: the run's events are not there any more: say where they are ({_WHERE})")
    store = EventStore.open(path)
    if store.checksum != checksum:
        raise StoreError(
            f"{path}: the run was trained on events of checksum {checksum[:16]}…, these have "
            f"{store.checksum[:16]}…: give the original store ({_WHERE})"
        )
    return store


def _write(path: Path, text: str) -> None:
    """Replace a small file, wholly or not at all. Raises StoreError."""
    with write_errors(path, _MAKE_ROOM):
        write_text(path, text)
