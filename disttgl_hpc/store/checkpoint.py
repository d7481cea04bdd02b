"""Checkpoints: named arrays and plain attributes in one HDF5 file that is either whole or absent. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import open_checked, replacing

KIND = "disttgl-checkpoint"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: arrays by slash-separated name, and JSON values."""

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """Arrays below ``name/``, keyed by the rest of their names."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: array for key, array in self.arrays.items() if key.startswith(prefix)}


def write_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> None:
    """Write a checkpoint; the previous file of that name stays until the new one is whole.

    Raises StoreError when it cannot be written (say, a full disk).
    """
    try:
        with replacing(path) as partial, h5py.File(partial, "w") as file:
            file.attrs["kind"], file.attrs["schema_version"] = KIND, SCHEMA_VERSION
            file.attrs["attributes"] = json.dumps(attributes)
            for name, array in arrays.items():
                file[name] = array
    except OSError as error:
        raise StoreError(
            f"{path}: the checkpoint cannot be written ({error}); the previous one is intact"
        ) from error


def read_checkpoint(path: Path, group: str = "") -> Checkpoint:
    """Read the arrays of a checkpoint, all or those of one group such as "weights".

    Raises StoreError naming the file, what was expected and what to do.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        file.visititems(lambda name, item: _collect(arrays, name, item, group))
        return Checkpoint(arrays, json.loads(file.attrs["attributes"]))


def read_array(path: Path, name: str, out: NDArray[Any]) -> None:
    """Read one array of a checkpoint into ``out``. Raises StoreError, also if it has another shape or dtype."""
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        dataset = file[name]
        if (dataset.shape, dataset.dtype) != (out.shape, out.dtype):
            raise StoreError(
                f"{path}: {name} must be {out.shape} {out.dtype}, found {dataset.shape} {dataset.dtype}: use the "
                "events and the config.json that the run was made with"
            )
        if dataset.size:
            dataset.read_direct(out)


def _collect(arrays: dict[str, NDArray[Any]], name: str, item: h5py.Group | h5py.Dataset, group: str) -> None:
    """Add a dataset of the group; groups only lead to datasets."""
    if isinstance(item, h5py.Dataset) and name.startswith(group):
        arrays[name] = np.asarray(item)
