"""The run directory: config.json, metrics.jsonl and checkpoints."""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.log import get_logger
from disttgl_hpc.sampling.local_batch import SAMPLING_VERSION
from disttgl_hpc.store.checkpoint_files import (
    checkpoint_folder,
    checkpoint_folders,
    has_manifest,
    part_path,
    read_manifest,
    remove_checkpoint,
    step_of,
)
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import replacing
from disttgl_hpc.training.run_events import static_settings

log = get_logger(__name__)

_WHERE = "evaluate RUN --events EVENTS, train EVENTS --resume RUN"


class RunDirectory:
    """Files of one run. Only rank 0 writes, but for the parts of checkpoints, which each node writes itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.trace_file = path / "trace.json"
        self.checkpoints = path / "checkpoints"
        self.best_file = self.checkpoints / "best.json"
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
        return part_path(checkpoint_folder(self.checkpoints, self.read_best()["step"]), 0)

    def check_free(self) -> None:
        """Raise ConfigError if the directory holds a run; asked on every rank before any of them writes."""
        holds_records = self.metrics_file.is_file() and self.metrics_file.stat().st_size
        if holds_records or self.whole_checkpoints:
            raise ConfigError(
                f"{self.path} already has a run: choose another --run, remove it, or continue it with --resume"
            )
        if any(place.exists() and not place.is_dir() for place in (self.path, *self.path.parents)):
            raise ConfigError(f"{self.path}: a part of this path is a file: choose another --run")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the directory, and keep other jobs out of it while the context lasts.

        The kernel lets go of a lock when its process is killed. Raises StoreError where the directory cannot
        be made, ConfigError if a job is training in it now.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            file = self._lock_file.open("w", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be made ({error.strerror}): choose another --run"
            ) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(
                    f"{self.path}: a job is training this run now: wait for its end, or choose another --run"
                ) from None
            except OSError as error:
                log.warning("%s cannot be locked (%s): start no second job on it", self.path, error.strerror)
            yield

    def begin(self, config: dict[str, Any], step: int, *, is_validated: bool = False) -> float:
        """Write config.json, and forget all records and checkpoints that came after ``step``.

        is_validated: a sweep that ends with it keeps its record, else it is to be recorded again.

        Returns the best score until then, −∞ if there is none on these events.
        """
        for folder in checkpoint_folders(self.checkpoints):
            if step_of(folder) > step or not has_manifest(folder):
                remove_checkpoint(folder)
        with suppress(StoreError):
            if self.read_best()["step"] > step:  # that checkpoint was damaged, so it is trained again
                self.best_file.unlink()
        end = step + is_validated
        kept = [json.dumps(record) + "\n" for record in self.records() if record.get("step", end) < end]
        _write(self.metrics_file, "".join(kept))
        _write(self.config_file, json.dumps(config, indent=2) + "\n")
        with suppress(StoreError, LookupError):
            best = read_manifest(self.best_checkpoint.parent).attributes["settings"]
            if best["checksum"] == config["checksum"]:
                return float(self.read_best()["score"])
        return -math.inf

    def keep_best(self, step: int, sweep: int, score: float) -> None:
        """Make the checkpoint of ``step`` the best one; there is one at any moment."""
        _write(self.best_file, json.dumps({"step": step, "sweep": sweep, "score": score}) + "\n")

    def read_best(self) -> dict[str, Any]:
        """What :meth:`keep_best` wrote last. Raises StoreError if no sweep has been validated yet."""
        try:
            best = json.loads(self.best_file.read_text(encoding="utf-8"))
            return {"step": int(best["step"]), "sweep": int(best["sweep"]), "score": float(best["score"])}
        except FileNotFoundError:
            raise StoreError(f"{self.path}: the run has finished no sweep yet: train it further") from None
        except (OSError, ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise StoreError(f"{self.best_file}: cannot be read ({error}): train the run again") from error

    def read_config(self) -> dict[str, Any]:
        """What :meth:`begin` wrote. Raises StoreError when it is not there, or is nothing of the kind."""
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise StoreError(f"{self.config_file}: no run's configuration: give a run directory") from error
        if not isinstance(config, dict):
            raise StoreError(f"{self.config_file}: expected a JSON object, found {type(config).__name__}")
        for name in ("events", "checksum", "batches"):
            if not isinstance(config.get(name, "" if name == "batches" else None), str):
                raise StoreError(f"{self.config_file}: must name the run's {name}, it does not: restore it")
        return config

    def record(self, kind: str, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and make it durable."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"record": kind, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_trace(self, trace: dict[str, Any]) -> None:
        """Write trace.json, in place of one of an earlier job."""
        _write(self.trace_file, json.dumps(trace, separators=(",", ":")) + "\n")

    def records(self) -> list[dict[str, Any]]:
        """All whole lines of metrics.jsonl; a job that was killed may have left half a line at the end."""
        if not self.metrics_file.exists():
            return []
        content = self.metrics_file.read_bytes()
        return [self._record(number, line) for number, line in enumerate(content.split(b"\n")[:-1], 1)]

    def _record(self, number: int, line: bytes) -> dict[str, Any]:
        """A line of metrics.jsonl. Raises StoreError if it is not a record."""
        try:
            record = json.loads(line)
            if isinstance(record["record"], str) and isinstance(record.get("step", 0), int):
                return dict(record)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            pass
        raise StoreError(
            f"{self.metrics_file}, line {number}: must be a record, it is none: restore or delete it"
        )


def run_settings(store: EventStore, config: TrainConfig, batches: Path | None = None) -> dict[str, Any]:
    """What config.json says of a run: its inputs, where its training events end, every setting as it was chosen.

    A batch store needs no checksum here: it is of the same events or is refused, and changes no result.
    """
    inputs: dict[str, Any] = {"events": str(store.path.resolve()), "checksum": store.checksum}
    if batches is not None:
        inputs["batches"] = str(batches.resolve())
    inputs |= {"train_end": store.stream.split.train_end, "sampling_version": SAMPLING_VERSION}
    return {**inputs, **config.as_dict(), **static_settings(config)}


def saved_config(settings: dict[str, Any]) -> TrainConfig:
    """The TrainConfig in what :func:`run_settings` gave."""
    names = [setting.name for setting in fields(TrainConfig)]
    return train_config({name: settings[name] for name in names if name in settings})


def open_events(path: Path, checksum: str) -> EventStore:
    """The events that a run was made with. Raises StoreError where they are not these."""
    if not path.exists():
        raise StoreError(f"{path}: the run's events are not there any more: say where they are ({_WHERE})")
    store = EventStore.open(path)
    if store.checksum != checksum:
        raise StoreError(
            f"{path}: the run was trained on events of checksum {checksum[:16]}…, these have "
            f"{store.checksum[:16]}…: give the original store ({_WHERE})"
        )
    return store


def _write(path: Path, text: str) -> None:
    """Replace a small file, wholly or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")
