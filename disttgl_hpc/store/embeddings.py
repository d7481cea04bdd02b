"""Embeddings in an HDF5 file: what other programs read, with where they are from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.store.files import replacing, telling_why
from disttgl_hpc.store.laid_out import write_laid_out

KIND = "disttgl-embeddings"
SCHEMA_VERSION = 1


def write_embeddings(path: Path, columns: Mapping[str, NDArray[Any]], origin: Mapping[str, Any]) -> None:
    """Write arrays of n rows by name, texts as UTF-8 of fixed length, and plain values. Raises StoreError."""
    arrays = {
        name: np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        for name, values in columns.items()
    }
    described = {"kind": KIND, "schema_version": SCHEMA_VERSION, "origin": json.dumps(dict(origin))}
    with telling_why(path, "make room there, or choose another place"), replacing(path) as partial:
        write_laid_out(partial, described, arrays)
