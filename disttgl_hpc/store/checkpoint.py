"""Parts of checkpoints: named arrays and plain attributes in an HDF5 file that is whole or absent. No pickle."""

from __future__ import annotations

import hashlib
import json
import os
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
SCHEMA_VERSION = 2
_STRUCTURE_BYTES = 4096  # more than HDF5 needs for a dataset


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

    HDF5 tells of a full disk when it closes a file, and not in a way that can be caught. So it writes the file's
    structure only, for which there is room by then, and the arrays go to where it has allocated them.
    Raises StoreError when the part cannot be written (say, a full disk).
    """
    text = json.dumps(attributes)
    try:
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            structure_bytes = len(text) + _STRUCTURE_BYTES * (1 + len(arrays))
            with partial.open("wb") as file:
                file.write(bytes(structure_bytes))
                file.truncate(structure_bytes + sum(array.nbytes for array in arrays.values()))
            offsets = _write_structure(partial, arrays, text)
            with partial.open("r+b") as file:
                for name, offset in offsets.items():
                    file.seek(offset)
                    file.write(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
            return sha256_of(partial)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else f"{error}"
        raise StoreError(
            f"{path}: the checkpoint cannot be written ({reason}): make room on the disk; the checkpoints "
            "before it are intact"
        ) from error


def _write_structure(path: Path, arrays: Mapping[str, NDArray[Any]], attributes: str) -> dict[str, int]:
    """Write everything but the arrays' bytes; returns where in the file those of each array belong."""
    allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocated.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        file.attrs["kind"], file.attrs["schema_version"] = KIND, SCHEMA_VERSION
        file.attrs["attributes"] = attributes
        offsets = {}
        for name, array in arrays.items():
            if array.ndim and array.size:
                dataset = file.create_dataset(name, array.shape, array.dtype, dcpl=allocated)
                offsets[name] = dataset.id.get_offset()
            else:
                file[name] = array  # a scalar lies in the structure
        return offsets


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path, group: str = "") -> Checkpoint:
    """Read the arrays of a part, all or those of one group such as "weights".

    Raises StoreError naming the file, what was expected and what to do.
    """
    arrays: dict[str, NDArray[Any]] = {}
    with open_checked(path, KIND, SCHEMA_VERSION) as file:
        file.visititems(lambda name, item: _collect(arrays, name, item, group))
        return Checkpoint(arrays, json.loads(file.attrs["attributes"]))


def read_array(path: Path, name: str, out: NDArray[Any]) -> None:
    """Read one array of a part into ``out``. Raises StoreError, also if it has another shape or dtype."""
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
