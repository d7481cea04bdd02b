"""The batch store: message flow graphs sampled beforehand, in one HDF5 file that is mapped into memory (DESIGN §5).

Every slice of every global batch has 1 + S records side by side: that of its positives, then one for each negative
set (see ``sampling.graph_records``). Mail, which depends on where a sweep began, and dropout, which differs in every
pass, are not part of a record; they are computed during training.

Writing a batch store: in parts that survive an interruption, then joined to one file.
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
from disttgl_hpc.store.files import Pieces, map_dataset, open_checked, replacing, telling_why, write_laid_out

_DTYPES = {"records": np.uint8, "offsets": np.int64, "checksums": np.uint32}
KIND, PART_KIND = "disttgl-batches", "disttgl-batches-part"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class BatchKey:
    """Everything that the records of a batch store depend on.

    events: checksum of the event store. sampling_version: of the code that drew them. The rest are settings of
    training, of which minibatch is the grid's i.
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
        """Raise ValueError for what no sampling was asked for; such a key was read from a foreign file."""
        for setting in dataclasses.fields(self):
            value = getattr(self, setting.name)
            least = 0 if setting.name in ("seed", "negative_sets") else 1
            fits = isinstance(value, str if setting.type == "str" else int) and not isinstance(value, bool)
            if not fits or (isinstance(value, int) and not least <= value < 1 << 63):
                raise ValueError(f"key {setting.name} cannot be {value!r}")

    @property
    def num_batches(self) -> int:
        """Global batches of a training sweep."""
        return -(-self.train_end // (self.local_batch * self.minibatch))

    @property
    def records_per_batch(self) -> int:
        """Records of a global batch, 1 + S for each of its slices."""
        return self.minibatch * (1 + self.negative_sets)

    def differences(self, other: BatchKey) -> list[tuple[str, Any, Any]]:
        """Names of all fields that differ, with both values."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return [(name, mine[name], theirs[name]) for name in mine if mine[name] != theirs[name]]


@dataclass(frozen=True)
class BatchStore:
    """An opened batch store, or a part of one: records of the global batches [first_batch, last_batch).

    records: the bytes of all records, a read-only map that all processes of a node share in its page cache.
    offsets: (n + 1,) int64, where each record begins in it. checksums: (n,) uint32, crc32 of each record.
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
        """Map a store after checking that it is whole and of our schema; reads no record.

        Raises StoreError naming the file, what was expected, what was found and what to do.
        """
        with open_checked(path, kind, SCHEMA_VERSION) as file:
            key = BatchKey(**json.loads(file.attrs["key"]))
            first, last = (int(file.attrs[name]) for name in ("first_batch", "last_batch"))
            tables = {name: map_dataset(file, name, path) for name in _DTYPES}
            _check_tables(tables, (last - first) * key.records_per_batch)
            records, offsets, checksums = (tables[name] for name in _DTYPES)
            # Copied: a map holds its file open for as long as anyone keeps a part of it.
            tables_of_own = offsets.copy(), checksums.copy()
            return cls(path, key, first, last, records, *tables_of_own, np.zeros(len(checksums), np.bool_))

    def verify(self) -> None:
        """Read everything and compare it with the checksums. Raises StoreError if a byte has changed."""
        for batch in range(self.first_batch, self.last_batch):
            for minibatch in range(self.key.minibatch):
                for index in range(1 + self.key.negative_sets):
                    self.record(batch, minibatch, index)

    def record(self, batch: int, minibatch: int, index: int) -> NDArray[np.uint8]:
        """Bytes of a slice's record: the positives' (index 0) or that of negative set index − 1; not copied.

        Compared with its checksum when this process reads it for the first time. Raises StoreError.
        """
        at = (batch - self.first_batch) * self.key.records_per_batch
        at += minibatch * (1 + self.key.negative_sets) + index
        content = self.records[self.offsets[at] : self.offsets[at + 1]]
        if not self._known_good[at]:
            found = zlib.crc32(content.data)
            if found != self.checksums[at]:
                what = f"negative set {index - 1}" if index else "the positives"
                raise StoreError(
                    f"{self.path}: global batch {batch}, slice {minibatch}, {what}: the bytes must have the crc32 "
                    f"{self.checksums[at]:08x}, they have {found:08x}: copy the store again, or "
                    "make it again with disttgl sample --force"
                )
            self._known_good[at] = True
        return content

    def check_key(self, wanted: BatchKey) -> None:
        """Raise StoreError, with everything that differs, unless the store was sampled with just this key."""
        differences = self.key.differences(wanted)
        if differences:
            listed = "; ".join(
                f"{name} {theirs!r} there, {ours!r} here" for name, theirs, ours in differences
            )
            raise StoreError(
                f"{self.path}: the batches must have been sampled for this run, they differ in {listed}: give "
                "train what the store was sampled with, or sample a store for this run, or train without --batches"
            )


def _check_tables(tables: dict[str, NDArray[Any]], num_records: int) -> None:
    """Raise ValueError unless offsets and checksums fit the number of records."""
    for name, dtype in _DTYPES.items():
        if tables[name].ndim != 1 or tables[name].dtype != dtype:
            raise ValueError(f"{name} must have 1 dimension and dtype {np.dtype(dtype)}")
    offsets, num_checksums, size = tables["offsets"], len(tables["checksums"]), len(tables["records"])
    if num_records < 1 or (len(offsets), num_checksums) != (num_records + 1, num_records):
        raise ValueError(
            f"{num_records} records need as many checksums and an offset more, found {num_checksums} and "
            f"{len(offsets)}"
        )
    if offsets[0] != 0 or offsets[-1] != size or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"offsets must ascend from 0 to {size}, the bytes of all records")


_COPY_BYTES = 16 << 20
_REMEDY = "free space there, or choose another folder; repeat the command to continue with the complete parts"


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
