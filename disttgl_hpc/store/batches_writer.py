"""Writing a batch store: in parts that survive an interruption, then joined to one file."""

from __future__ import annotations

import dataclasses
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.batches import KIND, PART_KIND, SCHEMA_VERSION, BatchKey, BatchStore
from disttgl_hpc.store.files import replacing

_COPY_BYTES = 16 << 20
_ALIGNMENT = 64
_METADATA_BYTES = 16 << 10  # more than HDF5 needs for three datasets and our attributes


def write_part(
    path: Path, key: BatchKey, batches: tuple[int, int], records: Sequence[NDArray[np.uint8]]
) -> None:
    """Write the records of the global batches [first, last), in the store's order, as a part of a store.

    Raises StoreError where it cannot be written.
    """
    offsets = np.cumsum([0, *map(len, records)])
    checksums = np.array([zlib.crc32(record.data) for record in records], np.uint32)
    attributes = _attributes(PART_KIND, key, *batches)
    _write(path, attributes, {"offsets": offsets, "checksums": checksums}, [np.concatenate(records)])


def is_part(path: Path, key: BatchKey, batches: tuple[int, int]) -> bool:
    """Whether ``path`` is a whole part with just these batches; one of another store or a damaged one is not."""
    try:
        part = BatchStore.open(path, PART_KIND)
        part.verify()
    except StoreError:
        return False
    return part.key == key and (part.first_batch, part.last_batch) == batches


def join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Write the store whose parts, in order, are these. Raises StoreError where it cannot be written.

    It is written beside the parts, so that whoever removes them removes what an interruption left of it too.
    """
    lengths, checksums = [], []
    for part in _opened(parts):
        lengths.append(np.diff(part.offsets))
        checksums.append(part.checksums)
    tables = {
        "offsets": np.concatenate([[0], np.cumsum(np.concatenate(lengths))]),
        "checksums": np.concatenate(checksums),
    }
    joined = parts[0].with_name(path.name)
    _write(joined, _attributes(KIND, part.key, 0, part.last_batch), tables, _contents(parts))
    joined.replace(path)


def _opened(parts: Iterable[Path]) -> Iterator[BatchStore]:
    """The parts, one at a time: each that is open holds a file open."""
    for part in parts:
        yield BatchStore.open(part, PART_KIND)


def _contents(parts: Iterable[Path]) -> Iterator[NDArray[np.uint8]]:
    """All bytes of the parts, a piece at a time."""
    for part in _opened(parts):
        for begin in range(0, len(part.records), _COPY_BYTES):
            yield part.records[begin : begin + _COPY_BYTES]


def _attributes(kind: str, key: BatchKey, first_batch: int, last_batch: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "key": json.dumps(dataclasses.asdict(key)),
        "first_batch": first_batch,
        "last_batch": last_batch,
    }


def _write(
    path: Path,
    attributes: dict[str, Any],
    tables: dict[str, NDArray[Any]],
    contents: Iterable[NDArray[np.uint8]],
) -> None:
    """Write attributes, the tables "offsets" and "checksums", and the bytes of all records.

    HDF5 tells of a full disk late, when it closes a file, and not in a way that can be caught whole. So it writes
    the tables only, for which there is room by then, and the records go to where it has allocated them.
    """
    num_bytes = int(tables["offsets"][-1])
    tables_bytes = _METADATA_BYTES + sum(table.nbytes for table in tables.values())
    with _telling_why(path), replacing(path) as partial:
        with partial.open("wb") as file:
            file.write(bytes(tables_bytes))
            file.truncate(tables_bytes + num_bytes)
        offset = _write_tables(partial, attributes, tables, num_bytes)
        with partial.open("r+b") as file:
            file.seek(offset)
            for content in contents:
                file.write(content.data)


def _write_tables(
    path: Path, attributes: dict[str, Any], tables: dict[str, NDArray[Any]], num_bytes: int
) -> int:
    """Write everything but the records; → where in the file their bytes belong."""
    allocated = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    allocated.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    allocated.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file:
        file.attrs.update(attributes)
        for name, table in tables.items():
            file[name] = table
        records = file.create_dataset("records", (num_bytes,), np.uint8, dcpl=allocated)
        offset: int = records.id.get_offset()
        return offset


@contextmanager
def _telling_why(path: Path) -> Iterator[None]:
    """Turn an error of writing into a StoreError that names file, reason and remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        code = getattr(error, "errno", None)
        reason = os.strerror(code) if code else f"{error}"  # the HDF5 library's own words fill a screen
        raise StoreError(
            f"{path}: cannot be written ({reason}): make room there, or choose another place; the same command "
            "goes on with the parts that are complete"
        ) from error
