"""Rows of float32, one a node, and where they are from: files of static memory, and the memory a run keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import map_dataset, plain, replacing, telling_why
from disttgl_hpc.store.laid_out import write_laid_out


def map_rows(file: h5py.File, name: str, path: Path) -> tuple[NDArray[np.float32], dict[str, Any], str]:
    """Rows ``name`` of the file ``path`` as a read-only map, the values of their origin, and their checksum.

    Raises StoreError as :func:`~.files.map_dataset` does; what else is wrong :func:`~.files.open_checked` tells.
    """
    rows = map_dataset(file, name, path)
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ValueError(f"{name} must have 2 dimensions of float32, found {rows.shape} {rows.dtype}")
    return rows, json.loads(file.attrs["origin"]), str(plain(file.attrs["checksum"]))


def write_rows(
    path: Path,
    described: Mapping[str, Any],
    rows: Mapping[str, NDArray[np.float32]],
    origin: Mapping[str, Any],
    remedy: str,
) -> str:
    """Write rows (N, dim), by their name, with plain values and their origin; returns the checksum of both.

    Raises StoreError, with ``remedy``, where they cannot be written.
    """
    (only,) = rows.values()
    checksum = _checksum(only, origin)
    attributes = {**described, "origin": json.dumps(dict(origin)), "checksum": checksum}
    with telling_why(path, remedy), replacing(path) as partial:
        write_laid_out(partial, attributes, rows)
    return checksum


def check_rows(path: Path, rows: NDArray[np.float32], origin: Mapping[str, Any], checksum: str) -> None:
    """Read rows and compare them with their checksum. Raises StoreError if a byte has changed."""
    found = _checksum(rows, origin)
    if found != checksum:
        raise StoreError(
            f"{path}: contents must have the checksum {checksum[:16]}…, found {found[:16]}…: write or copy it anew"
        )


def _checksum(rows: NDArray[np.float32], origin: Mapping[str, Any]) -> str:
    """One sha256 over rows, their shape, and their origin."""
    described = json.dumps([list(rows.shape), dict(origin)], sort_keys=True)
    digest = hashlib.sha256(described.encode())
    digest.update(np.ascontiguousarray(rows).data)
    return digest.hexdigest()
