"""What a reader returns: chunks of events, and what is known of the whole input, such as features of nodes.

:func:`array_events` makes chunks of input in arrays; :class:`NodeTable` gathers node features in the order of a
store's nodes without loading all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.ids import NodeNumbers
from disttgl_hpc.ingest.raw_events import Origin, RawEvents, feature_rows, raw_events
from disttgl_hpc.ingest.readers.array_files import map_array
from disttgl_hpc.store.files import check_is_file

Chunks = Iterator[tuple[RawEvents, Origin]]
PARTS = ("train", "validation", "test")
_KEPT_DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class RawInput:
    """One input: its files, its events, and what is known of nodes and classes before reading.

    node_features: rows by node id, or None. class_names: of the classes, if edge labels are numbers of these.
    """

    files: tuple[Path, ...]
    events: Chunks
    node_features: NodeTable | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EventArrays:
    """An input in arrays, possibly maps of files, one row per event.

    columns: src, dst, time and, optionally, label and node_label, (E,) each. features: (E, dim); dim may be 0.
    split: (E,), 0 training, 1 validation, 2 test. negatives: node ids that the events of validation and of test are
    ranked against, one row per event in their order, −1 as padding.
    """

    columns: dict[str, NDArray[Any]]
    features: NDArray[Any] | None = None
    split: NDArray[Any] | None = None
    negatives: tuple[NDArray[Any], NDArray[Any]] | None = None


def array_events(arrays: EventArrays, place: Path | str, chunk_events: int) -> Chunks:
    """Chunks of events in arrays; ``place`` names the input in messages.

    Raises InputError for arrays of different lengths, and for values that raw events must not have.
    """
    features = arrays.features
    if features is not None and features.ndim == 2 and features.shape[1] == 0:
        features = None
    columns = {name: _plain(values, name, place) for name, values in arrays.columns.items()}
    num_events = len(columns["src"])
    rows = {**columns, "edge features": features, "split": arrays.split}
    for name, values in rows.items():
        if values is not None and (values.ndim == 0 or len(values) != num_events):
            raise InputError(
                f"{place}: every event needs one row in each array, src has {num_events:,} and {name} "
                f"{values.shape}: use arrays of one length"
            )
    roles = Columns(
        label="label" if "label" in columns else None,
        node_label="node_label" if "node_label" in columns else None,
    )
    split = None if arrays.split is None else split_rows(arrays.split, Origin(place, 0, row_place))
    if arrays.negatives is not None and columns["dst"].dtype.kind not in "iu":
        raise InputError(
            f"{place}: negatives are node numbers, dst has {columns['dst'].dtype}: number the nodes"
        )
    negatives = _Negatives(arrays.negatives, split, place)
    for first in range(0, num_events, chunk_events):
        chunk = slice(first, first + chunk_events)
        origin = Origin(place, first, row_place)
        table = pa.table({name: _arrow(values[chunk], name, origin) for name, values in columns.items()})
        raw = raw_events(table, roles, origin)
        yield (
            RawEvents(
                src=raw.src,
                dst=raw.dst,
                time=raw.time,
                edge_label=raw.edge_label,
                node_label=raw.node_label,
                features=None if features is None else feature_rows(features[chunk], origin),
                split=None if split is None else split[chunk],
                negatives=negatives.next_rows(split[chunk]) if split is not None else None,
                time_unit=raw.time_unit,
                time_step=raw.time_step,
            ),
            origin,
        )


def row_place(row: int) -> str:
    """The place of an event in messages, counted from 1."""
    return f"row {row + 1}"


def split_rows(values: NDArray[Any], origin: Origin) -> NDArray[np.int8]:
    """Parts of events (n,) int8 from numbers. Raises InputError for anything but 0, 1 and 2."""
    if values.ndim != 1 or values.dtype.kind not in "iufb":
        raise origin.error(0, f"the split must be numbers, found {values.shape} {values.dtype}: convert it")
    wrong = np.flatnonzero(~np.isin(values, (0, 1, 2)))
    if len(wrong):
        row = int(wrong[0])
        raise origin.error(
            row,
            f"the split must be 0 (training), 1 (validation) or 2 (test), found {values[row]}: correct or "
            "omit it",
        )
    return values.astype(np.int8)


class _Negatives:
    """Provided negatives of validation and test, taken chunk by chunk as their events are read."""

    def __init__(
        self,
        tables: tuple[NDArray[Any], NDArray[Any]] | None,
        split: NDArray[np.int8] | None,
        place: Path | str,
    ) -> None:
        self._tables, self._width = tables, 0
        self._next = [0, 0]
        if tables is None:
            return
        if split is None:
            raise InputError(f"{place}: negatives need the split that they belong to: add the array split")
        for part, table in enumerate(tables, 1):
            expected = int((split == part).sum())
            if table.ndim != 2 or table.dtype.kind not in "iu" or len(table) != expected:
                raise InputError(
                    f"{place}: negatives of {PARTS[part]} must be node ids, one row for each of its {expected:,} "
                    f"events, found {table.shape} {table.dtype}: correct them"
                )
        self._width = max(table.shape[1] for table in tables)

    def next_rows(self, split: NDArray[np.int8]) -> NDArray[np.int64] | None:
        """Rows (h, width) int64 of the next events, whose parts are ``split``; None without negatives."""
        if self._tables is None:
            return None
        parts = split[split > 0]
        rows = np.full((len(parts), self._width), -1, np.int64)
        for part, table in enumerate(self._tables, 1):
            first, count = self._next[part - 1], int((parts == part).sum())
            rows[parts == part, : table.shape[1]] = table[first : first + count]
            self._next[part - 1] += count
        return rows


def _plain(values: NDArray[Any], name: str, place: Path | str) -> NDArray[Any]:
    """A column in native byte order. Raises InputError unless it is a vector of numbers, texts or times."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1 or values.dtype.kind not in "biufUM":
        raise InputError(
            f"{place}: {name} must be a vector of numbers or texts, found {values.shape} {values.dtype}: convert it"
        )
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def _arrow(values: NDArray[Any], name: str, origin: Origin) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise origin.error(0, f"{name} cannot be read ({error}): convert it to numbers or texts") from None


@dataclass(frozen=True)
class NodeTable:
    """Features of nodes: row r of ``rows`` (R, dim) belongs to the node with id r; ``place`` names the table."""

    place: Path | str
    rows: NDArray[Any]

    def __post_init__(self) -> None:
        """Raise InputError unless rows are a table of numbers."""
        if self.rows.ndim != 2 or self.rows.dtype.kind not in "biuf" or 0 in self.rows.shape:
            raise InputError(
                f"{self.place}: node features must be numbers (node ids, columns), found {self.rows.shape} "
                f"{self.rows.dtype}: convert them"
            )

    @classmethod
    def open(cls, path: Path) -> NodeTable:
        """The table of a ``.npy`` file, mapped. Raises InputError."""
        if path.exists():
            check_is_file(path)
        return cls(path, map_array(path))

    def of(self, nodes: NodeNumbers) -> GatheredRows:
        """The rows of a store's nodes. Raises InputError unless each node has a row of its own."""
        if nodes.ids.dtype.kind != "i":
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, but ids are text "
                f"such as '{nodes.ids[0]}': number the nodes from 0, or omit node features"
            )
        ids = np.asarray(nodes.ids, np.int64)
        largest = int(ids.max())
        if largest >= len(self.rows):
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, {len(self.rows):,} rows "
                f"were found and the largest id is {largest}: add a row for every id"
            )
        shared = np.intersect1d(ids[: nodes.num_src], ids[nodes.num_src :])
        if nodes.num_src and len(shared):
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, but {len(shared):,} ids "
                f"such as {shared[0]} are both a source's and a destination's: omit --bipartite, or number "
                "destinations after sources"
            )
        return GatheredRows(self, ids)


@dataclass(frozen=True)
class GatheredRows:
    """Rows ``ids`` (N,) of a table; a slice is read when it is accessed."""

    table: NodeTable
    ids: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 and float32 are kept, other numbers become float32."""
        dtype = self.table.rows.dtype
        return dtype.newbyteorder("=") if dtype.name in _KEPT_DTYPES else np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self.ids) * int(self.table.rows.shape[1]) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Rows of consecutive nodes. Raises InputError if one of them is not finite."""
        ids = self.ids[part]
        with np.errstate(over="ignore"):
            rows = self.table.rows[ids].astype(self.dtype)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise InputError(
                f"{self.table.place}, row of node {ids[broken[0]]}: node features must be finite float32 numbers: "
                "fill them in"
            )
        return rows
