"""What every file of ours shares: it appears whole or not at all, and is checked before it is believed.

HDF5 files whose arrays are written past the library, so that a full disk is an error that can be caught.

HDF5 tells of a full disk late, when it closes a file, and not in a way that can be caught whole. So it writes the
structure only, for which there is room by then, and the bytes of arrays go to where it has allocated them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError

_REMEDY = "make or copy the file again"


# What h5py raises for damaged metadata depends on which byte is wrong.
_DAMAGE = (
    OSError,
    LookupError,
    RuntimeError,
    ValueError,
    TypeError,
    ArithmeticError,
    AttributeError,
    MemoryError,
)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, which takes its place once the block ends without an error.

    What was written is synced before it is renamed: after a crash there is the old file or the new one, never
    half of one. On an error the temporary file is removed and ``path`` stays as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def telling_why(path: Path, remedy: str) -> Iterator[None]:
    """Turn an error of writing into a StoreError that names file, reason and ``remedy``."""
    try:
        yield
    except OSError as error:
        # The HDF5 library's own words fill a screen.
        reason = os.strerror(error.errno) if error.errno else f"{error}".partition("\n")[0]
        raise StoreError(f"{path}: cannot be written ({reason}): {remedy}") from error


@contextmanager
def open_checked(path: Path, kind: str, schema_version: int) -> Iterator[h5py.File]:
    """An HDF5 file of ours, open for reading.

    Raises StoreError where it is missing, no HDF5 file, truncated, of another kind or schema version; errors
    of the HDF5 library in the block are turned into one as well, and those of values that cannot be.
    """
    if not path.is_file():
        raise StoreError(f"{path}: no such file: check the path")
    try:
        with h5py.File(path, "r") as file:
            _check_kind(file, path, kind, schema_version)
            yield file
    except _DAMAGE as error:
        raise StoreError(f"{path}: {_complaint(str(error), path, kind)}") from None


def is_kind(path: Path, kind: str) -> bool:
    """Whether a file is one of ours of this kind, whole or not, of whatever schema version."""
    try:
        with h5py.File(path, "r") as file:
            return bool(plain(file.attrs["kind"]) == kind)
    except _DAMAGE:
        return False


def sha256_of(path: Path) -> str:
    """Checksum of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_fixed_length(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they are to be written: texts of fixed length, in UTF-8, of which a file takes 64 KiB each.

    Others lie in a heap of the file, and the HDF5 library may look for them for ever where that is damaged.
    """
    texts = {name: text.encode() for name, text in attributes.items() if isinstance(text, str)}
    return {**attributes, **{name: np.array(text, f"S{max(1, len(text))}") for name, text in texts.items()}}


def plain(value: Any) -> Any:
    """An attribute as it was before it was written: texts of fixed length are read as bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def own_dataset(file: h5py.File, name: str, path: Path) -> h5py.Dataset:
    """Dataset ``name`` of the file ``path``, whose bytes lie in one piece in this very file.

    So nothing is believed that a file only points to (links, other files' datasets), nor a size that it does not
    have. Raises StoreError; KeyError if there is none.
    """
    item = file
    for part in name.split("/"):
        link = item.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise StoreError(f"{path}: {name} must lie in the file, it is a link elsewhere: {_REMEDY}")
        item = item[part]
    if not isinstance(item, h5py.Dataset):
        raise StoreError(f"{path}: {name} must be a dataset, it is a group: {_REMEDY}")
    offset, size = item.id.get_offset(), path.stat().st_size
    if item.external or item.is_virtual or (item.nbytes and (offset is None or offset + item.nbytes > size)):
        raise StoreError(
            f"{path}: dataset {name} must lie in one piece within the file's {size:,} bytes, it does not: {_REMEDY}"
        )
    return item


def map_dataset(file: h5py.File, name: str, path: Path) -> NDArray[Any]:
    """A dataset of the file ``path`` as a read-only map. Raises StoreError as :func:`own_dataset` does."""
    dataset = own_dataset(file, name, path)
    offset = dataset.id.get_offset()
    # No advice to the kernel: batches move on with the stream and neighbours are mostly recent, so its read-ahead
    # pays even from a cold cache. MADV_RANDOM made gathers of features 2 to 10 times slower there.
    # A plain array over the map: the memmap class itself makes every small operation slower.
    return np.asarray(np.memmap(path, dataset.dtype, "r", offset, dataset.shape))


def _check_kind(file: h5py.File, path: Path, kind: str, schema_version: int) -> None:
    found = plain(file.attrs.get("kind"))
    if found != kind:
        raise StoreError(f"{path}: must be of kind '{kind}', found '{found}': give a file that disttgl wrote")
    version = file.attrs.get("schema_version")
    if version != schema_version:
        raise StoreError(
            f"{path}: schema version {schema_version} is read here, found {version}: make the file again"
        )


def _complaint(error: str, path: Path, kind: str) -> str:
    if "file signature not found" in error:
        return f"must be an HDF5 file of kind '{kind}', this is none: give a file that disttgl wrote"
    if "truncated file" in error:
        return f"was cut short at {path.stat().st_size:,} bytes: make or copy it again"
    return f"is damaged ({error}): make or copy it again"


def sync(path: Path) -> None:
    """Have the disk hold a file's contents, or a folder's names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
