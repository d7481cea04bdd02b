"""The run directory: config.json, metrics.jsonl and checkpoints."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.store.events import EventStore
from disttgl_hpc.store.files import replacing


class RunDirectory:
    """Files of one run. Only rank 0 writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.json"
        self.metrics_file = path / "metrics.jsonl"
        self.best_checkpoint = path / "checkpoints" / "best.h5"
        self.last_checkpoint = path / "checkpoints" / "last.h5"

    def check_free(self) -> None:
        """Raise ConfigError if the directory holds a run; asked on every rank before any of them writes."""
        if self.metrics_file.is_file() and self.metrics_file.stat().st_size:
            raise ConfigError(f"{self.path} holds a run already: choose another --run, or remove it")
        if any(place.exists() and not place.is_dir() for place in (self.path, *self.path.parents)):
            raise ConfigError(f"{self.path}: a part of this path is a file: choose another --run")

    def create(self, config: dict[str, Any]) -> None:
        """Make the directory and write config.json. Raises StoreError where that is not allowed."""
        try:
            self.best_checkpoint.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.path}: cannot be made ({error.strerror}): choose another --run"
            ) from error
        self.config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        self.metrics_file.touch()

    def keep_best(self) -> None:
        """Make the last checkpoint the best one; there is a whole best one at any moment."""
        with replacing(self.best_checkpoint) as partial:
            shutil.copyfile(self.last_checkpoint, partial)

    def read_config(self) -> dict[str, Any]:
        """What :meth:`create` wrote. Raises StoreError when it is not there or not JSON."""
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.config_file}: no run's configuration: give a run directory") from error
        if not isinstance(config, dict):
            raise StoreError(f"{self.config_file}: expected a JSON object, found {type(config).__name__}")
        return config

    def record(self, kind: str, values: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl and make it durable."""
        with self.metrics_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"record": kind, **values}) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def records(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return [json.loads(line) for line in self.metrics_file.read_text(encoding="utf-8").splitlines()]


def run_settings(store: EventStore, config: TrainConfig, shape: GridShape) -> dict[str, Any]:
    """What config.json says of a run: its input, and every setting with the grid that was laid."""
    settings = replace(config, grid=shape.option).as_dict()
    return {"events": str(store.path.resolve()), "checksum": store.checksum, **settings}


def saved_config(settings: dict[str, Any]) -> TrainConfig:
    """The TrainConfig in what :func:`run_settings` gave."""
    names = [setting.name for setting in fields(TrainConfig)]
    return train_config({name: settings[name] for name in names if name in settings})
