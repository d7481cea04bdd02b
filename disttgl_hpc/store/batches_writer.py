"""Writing a batch store: in parts that survive an interruption, then joined to one file."""

from __future__ import annotations

import dataclasses
import json
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
    opened = [BatchStore.open(part, PART_KIND) for part in parts]
    joined = parts[0].with_name(path.name)
    lengths = np.concatenate([np.diff(part.offsets) for part in opened])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    checksums = np.concatenate([part.checksums for part in opened])
    attributes = _attributes(KIND, opened[0].key, opened[0].first_batch, opened[-1].last_batch)
    _write(joined, attributes, {"offsets": offsets, "checksums": checksums}, _contents(opened))
    joined.replace(path)


def _contents(parts: Iterable[BatchStore]) -> Iterator[NDArray[np.uint8]]:
    """All bytes of the parts, a piece at a time."""
    for part in parts:
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
    """Write attributes, the tables "offsets" and "checksums", and the bytes of all records."""
    with (
        _telling_why(path),
        replacing(path) as partial,
        h5py.File(partial, "w", alignment_threshold=1, alignment_interval=_ALIGNMENT) as file,
    ):
        file.attrs.update(attributes)
        for name, table in tables.items():
            file[name] = table
        # Every byte is written below: without fill values each goes to disk once.
        records = file.create_dataset("records", (int(tables["offsets"][-1]),), np.uint8, fill_time="never")
        filled = 0
        for content in contents:
            records[filled : filled + len(content)] = content
            filled += len(content)


@contextmanager
def _telling_why(path: Path) -> Iterator[None]:
    """Turn an error of writing into a StoreError that names file, reason and remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or f"{error}"
        raise StoreError(
            f"{path}: cannot be written ({reason}): make room there, or choose another place; the same command "
            "goes on with the parts that are complete"
        ) from error
