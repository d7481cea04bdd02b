"""HDF5 files whose arrays are written past the library, so that a full disk is an error that can be caught.

HDF5 tells of a full disk late, when it closes a file, and not in a way that can be caught whole. So it writes the
structure only, for which there is room by then, and the bytes of arrays go to where it has allocated them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.store.files import of_fixed_length

_ALIGNMENT = 64
_STRUCTURE_BYTES = 4096  # more than HDF5 needs for a dataset, with the groups above it


@dataclass(frozen=True)
class Pieces:
    """A dataset of ``nbytes`` uint8 whose bytes come a piece at a time."""

    nbytes: int
    pieces: Iterable[NDArray[np.uint8]]
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int]:
        """As an array has one."""
        return (self.nbytes,)


def write_laid_out(
    path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | Pieces]
) -> None:
    """Write a file with these attributes, and arrays by slash-separated name. Raises OSError on a full disk."""
    structure_bytes = _STRUCTURE_BYTES * (1 + len(arrays)) + sum(len(f"{one}") for one in attributes.values())
    with path.open("wb") as file:
        file.write(bytes(structure_bytes))
        file.truncate(structure_bytes + sum(array.nbytes for array in arrays.values()))
    offsets = _write_structure(path, attributes, arrays)
    with path.open("r+b") as file:
        for name, offset in offsets.items():
            file.seek(offset)
            for piece in _pieces(arrays[name]):
                file.write(piece.data)


def _write_structure(
    path: Path, attributes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any] | Pieces]
) -> dict[str, int]:
    """Write everything but the arrays' bytes; → where in the file those of each array belong."""
    allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocated.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    offsets = {}
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file:
        file.attrs.update(of_fixed_length(attributes))
        for name, array in arrays.items():
            if isinstance(array, np.ndarray) and not (array.ndim and array.size):
                file[name] = array  # a scalar lies in the structure
                continue
            dataset = file.create_dataset(name, array.shape, array.dtype, dcpl=allocated)
            if array.nbytes:
                offsets[name] = dataset.id.get_offset()
    return offsets


def _pieces(array: NDArray[Any] | Pieces) -> Iterable[NDArray[np.uint8]]:
    if isinstance(array, Pieces):
        return array.pieces
    return (np.ascontiguousarray(array).reshape(-1).view(np.uint8),)
