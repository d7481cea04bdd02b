"""Writing a batch store: in parts that survive an interruption, then joined to one file."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.batch_store import KIND, PART_KIND, SCHEMA_VERSION, BatchKey, BatchStore
from disttgl_hpc.store.files import replacing, telling_why
from disttgl_hpc.store.laid_out import Pieces, write_laid_out

_COPY_BYTES = 16 << 20
_REMEDY = (
    "make room there, or choose another place; the same command goes on with the parts that are complete"
)


def write_part(
    path: Path, key: BatchKey, batches: tuple[int, int], records: Sequence[NDArray[np.uint8]]
) -> None:
    """Write the records of the global batches [first, last), in the store's order, as a part of a store.

    Raises StoreError where it cannot be written.
    """
    offsets = np.cumsum([0, *map(len, records)])
    checksums = np.array([zlib.crc32(record.data) for record in records], np.uint32)
    attributes = _attributes(PART_KIND, key, *batches)
    _write(path, attributes, offsets, checksums, [np.concatenate(records)])


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
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    joined = parts[0].with_name(path.name)
    attributes = _attributes(KIND, part.key, 0, part.last_batch)
    _write(joined, attributes, offsets, np.concatenate(checksums), _contents(parts))
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
    offsets: NDArray[np.int64],
    checksums: NDArray[np.uint32],
    contents: Iterable[NDArray[np.uint8]],
) -> None:
    """Write attributes, the tables, and the bytes of all records."""
    records = Pieces(int(offsets[-1]), contents)
    with telling_why(path, _REMEDY), replacing(path) as partial:
        write_laid_out(partial, attributes, {"offsets": offsets, "checksums": checksums, "records": records})
