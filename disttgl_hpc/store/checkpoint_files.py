"""Parts of checkpoints: named arrays and plain attributes in an HDF5 file that is whole or absent. No pickle."""

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
from disttgl_hpc.store.files import open_checked, own_dataset, replacing, sha256_of, telling_why
from disttgl_hpc.store.laid_out import write_laid_out

KIND = "disttgl-checkpoint"
SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Checkpoint:
    """What a part of a checkpoint holds: arrays by slash-separated name, and JSON values."""

    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]

    def group(self, name: str) -> dict[str, NDArray[Any]]:
        """Arrays below ``name/``, keyed by the rest of their names."""
        prefix = f"{name}/"
        return {key[len(prefix) :]: array for key, array in self.arrays.items() if key.startswith(prefix)}


def write_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: Mapping[str, Any]) -> str:
    """Write a part of a checkpoint, and the folder it lies in; returns the file's sha256.

    Raises StoreError when the part cannot be written (say, a full disk).
    """
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION, "attributes": json.dumps(attributes)}
    with telling_why(path, "make room on the disk; the checkpoints before it are intact"):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            write_laid_out(partial, described, arrays)
            return sha256_of(partial)


def read_checkpoint(path: Path, group: str = "") -> Checkpoint:
    """Read the arrays of a part, all or those of one group such as "weights".

    Raises StoreError naming the file, what was expected and what to do.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        for name in names:
            if name.startswith(group):
                arrays[name] = np.asarray(own_dataset(file, name, path))
        attributes = json.loads(file.attrs["attributes"])
        if not isinstance(attributes, dict):
            raise ValueError("attributes must be a JSON object")
        return Checkpoint(arrays, attributes)


def read_array(path: Path, name: str, out: NDArray[Any]) -> None:
    """Read one array of a part into ``out``. Raises StoreError, also if it has another shape or dtype."""
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        dataset = own_dataset(file, name, path)
        if (dataset.shape, dataset.dtype) != (out.shape, out.dtype):
            raise StoreError(
                f"{path}: {name} must be {out.shape} {out.dtype}, found {dataset.shape} {dataset.dtype}: use the "
                "events and the config.json that the run was made with"
            )
        if dataset.size:
            dataset.read_direct(out)
