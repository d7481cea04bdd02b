"""The batch store: presampled message flow graphs in one memory-mapped HDF5 file (schema: docs/files.md).

Each slice of a global batch has 1 + S adjacent records: one for its positives, then one for each negative set
(see :mod:`~.sampling.graph_records`). Records depend only on :class:`BatchKey`. Mail depends on where a sweep
starts, and dropout differs between passes, so both are computed during training.

A store is written in parts, which survive an interruption and are then joined into one file.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import StoreError
from disttgl_hpc.store.files import (
    Pieces,
    check_types,
    map_dataset,
    open_checked,
    replacing,
    write_arrays,
    write_errors,
)

_DTYPES = {"records": np.uint8, "offsets": np.int64, "checksums": np.uint32}
KIND, PART_KIND = "disttgl-batches", "disttgl-batches-part"
SCHEMA_VERSION = 1
_COPY_BYTES = 16 << 20
_REMEDY = "free disk space or choose another folder; the same command then continues with the complete parts"


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """Everything that the records of a batch store depend on.

    events: checksum of the event store. sampling_version: version of the sampling code. The others are
    settings of training; minibatch is the i of the grid i×j×k.
    """

    events: str
    train_end: int
    local_batch: int
    minibatch: int
    num_neighbors: int
    negatives_per_event: int
    negative_sets: int
    negative_strategy: str
    seed: int
    sampling_version: int

    def __post_init__(self) -> None:
        """Raise ValueError for impossible values, which only a foreign or damaged file contains."""
        check_types(self)
        for name, value in vars(self).items():
            least = 0 if name in ("seed", "negative_sets") else 1
            if isinstance(value, int) and not least <= value < 1 << 63:
                raise ValueError(f"invalid key: {name} {value!r}")

    @property
    def num_batches(self) -> int:
        """Number of global batches in a training sweep."""
        return -(-self.train_end // (self.local_batch * self.minibatch))

    @property
    def records_per_batch(self) -> int:
        """Number of records in a global batch: 1 + S for each of its slices."""
        return self.minibatch * (1 + self.negative_sets)

    def differences(self, other: BatchKey) -> list[tuple[str, Any, Any]]:
        """Return (name, own value, other value) of each field that differs."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [(name, mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class BatchStore:
    """An open batch store or part: records of the global batches [first_batch, last_batch).

    records: bytes of all records, a read-only map; processes of a compute node share it through the page
    cache. offsets: (n + 1,) int64, start of each record. checksums: (n,) uint32, crc32 of each record.
    """

    path: Path
    key: BatchKey
    first_batch: int
    last_batch: int
    records: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    checksums: NDArray[np.uint32]
    _known_good: NDArray[np.bool_] = dataclasses.field(repr=False)

    @classmethod
    def open(cls, path: Path, kind: str = KIND) -> BatchStore:
        """Map a store after checking its kind, schema version and tables; records are not read. Raises StoreError."""
        with open_checked(path, kind, SCHEMA_VERSION) as file:
            key = BatchKey(**json.loads(file.attrs["key"]))
            first, last = (int(file.attrs[name]) for name in ("first_batch", "last_batch"))
            tables = {name: map_dataset(file, name, path) for name in _DTYPES}
            _check_tables(tables, (last - first) * key.records_per_batch)
            records, offsets, checksums = (tables[name] for name in _DTYPES)
            # Copies, because a map keeps its file open as long as a view of it exists.
            tables_of_own = offsets.copy(), checksums.copy()
            return cls(path, key, first, last, records, *tables_of_own, np.zeros(len(checksums), np.bool_))

    def verify(self) -> None:
        """Compare every record with its checksum. Raises StoreError at the first mismatch."""
        for batch in range(self.first_batch, self.last_batch):
            for minibatch in range(self.key.minibatch):
                for index in range(1 + self.key.negative_sets):
                    self.record(batch, minibatch, index)

    def record(self, batch: int, minibatch: int, index: int) -> NDArray[np.uint8]:
        """Return a view of a slice's record: of its positives (index 0) or of negative set index − 1.

        The first read in a process compares it with its checksum. Raises StoreError.
        """
        at = (batch - self.first_batch) * self.key.records_per_batch
        at += minibatch * (1 + self.key.negative_sets) + index
        content = self.records[self.offsets[at] : self.offsets[at + 1]]
        if not self._known_good[at]:
            found = zlib.crc32(content.data)
            if found != self.checksums[at]:
                what = f"negative set {index - 1}" if index else "the positives"
                raise StoreError(
                    f"{self.path}: global batch {batch}, slice {minibatch}, {what}: damaged (crc32 must be "
                    f"{self.checksums[at]:08x}, found {found:08x}): copy the store again or recreate it with "
                    "disttgl sample --force"
                )
            self._known_good[at] = True
        return content

    def check_key(self, wanted: BatchKey) -> None:
        """Raise StoreError listing all differences if the store was sampled with another key."""
        differences = self.key.differences(wanted)
        if differences:
            listed = "; ".join(
                f"{name} {theirs!r} in the store, {ours!r} in this run" for name, theirs, ours in differences
            )
            raise StoreError(
                f"{self.path}: batches were sampled with other settings than this run's ({listed}): "
                f"change the "
                "settings, create a batch store for this run with disttgl sample, or train without --batches"
            )


def _check_tables(tables: dict[str, NDArray[Any]], num_records: int) -> None:
    """Raise ValueError unless offsets and checksums fit ``num_records`` records."""
    for name, dtype in _DTYPES.items():
        if tables[name].ndim != 1 or tables[name].dtype != dtype:
            raise ValueError(f"{name} must have 1 dimension and dtype {np.dtype(dtype)}")
    offsets, num_checksums, size = tables["offsets"], len(tables["checksums"]), len(tables["records"])
    if num_records < 1 or (len(offsets), num_checksums) != (num_records + 1, num_records):
        raise ValueError(
            f"{num_records} records need {num_records} checksums and {num_records + 1} offsets, found "
            f"{num_checksums} and {len(offsets)}"
        )
    if offsets[0] != 0 or offsets[-1] != size or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets must ascend from 0 to {size}, the size of all records in bytes")


def write_part(
    path: Path, key: BatchKey, batches: tuple[int, int], records: Sequence[NDArray[np.uint8]]
) -> None:
    """Write the records of the global batches [first, last), in the store's order, as a part. Raises StoreError."""
    offsets = np.cumsum([0, *map(len, records)])
    checksums = np.array([zlib.crc32(record.data) for record in records], np.uint32)
    attributes = _attributes(PART_KIND, key, *batches)
    _write(path, attributes, offsets, checksums, [np.concatenate(records)])


def is_part(path: Path, key: BatchKey, batches: tuple[int, int]) -> bool:
    """Whether ``path`` is a complete, undamaged part with this key and exactly these batches."""
    try:
        part = BatchStore.open(path, PART_KIND)
        part.verify()
    except StoreError:
        return False
    return part.key == key and (part.first_batch, part.last_batch) == batches


def join_parts(path: Path, parts: Sequence[Path]) -> None:
    """Join ``parts``, given in order, into the store ``path``. Raises StoreError.

    The joined file is written in the parts' folder, so removing that folder also removes an incomplete store.
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
    """Open the parts one at a time, because each open part keeps a file open."""
    for part in parts:
        yield BatchStore.open(part, PART_KIND)


def _contents(parts: Iterable[Path]) -> Iterator[NDArray[np.uint8]]:
    """Yield all bytes of the parts in pieces."""
    for part in _opened(parts):
        for start in range(0, len(part.records), _COPY_BYTES):
            yield part.records[start : start + _COPY_BYTES]


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
    """Write attributes, tables and the bytes of all records."""
    records = Pieces(int(offsets[-1]), contents)
    with write_errors(path, _REMEDY), replacing(path) as partial:
        write_arrays(partial, attributes, {"offsets": offsets, "checksums": checksums, "records": records})
