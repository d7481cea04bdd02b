"""Columns of the input in flat temporary files, and their stable order by time: memory is bounded for any input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.stream import int8_scale
from disttgl_hpc.events.tcsr import Times
from disttgl_hpc.ingest.ids import IdTable
from disttgl_hpc.ingest.raw_events import Origin, RawEvents, first_true

AnyTimes = NDArray[Any]  # int64 or float64; the types cannot express comparing arrays of either kind

_LARGEST_EXACT = 2**53
_LARGEST_TIME, _LEAST_SPAN = 1e30, 1e-30  # beyond these, elapsed times overflow or vanish in float32
_LARGEST_SPAN = 2**63 - 1
_REWRITE_CHUNK = 1 << 20
_SAMPLES = 65_536


class FlatColumn:
    """Rows of one dtype and width in a flat file: appended first, then read by slice or by positions."""

    def __init__(self, path: Path, dtype: np.dtype[Any], width: int = 0) -> None:
        self.dtype, self.width = np.dtype(dtype), width
        self._path = path
        self.row_bytes = self.dtype.itemsize * max(width, 1)
        path.touch()

    def __len__(self) -> int:
        return self._path.stat().st_size // self.row_bytes

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows (n,) or (n, width) at the end."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, self.dtype).data)

    def __getitem__(self, where: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Rows of a slice, which are read (a map would count as memory in use), or at positions, gathered."""
        shape = (-1, self.width) if self.width else (-1,)
        if isinstance(where, slice):
            start, stop, _ = where.indices(len(self))
            count = (stop - start) * max(self.width, 1)
            flat = np.fromfile(self._path, self.dtype, count, offset=start * self.row_bytes)
            return flat.reshape(shape)
        mapped = np.memmap(self._path, self.dtype, "r").reshape(shape)
        return np.asarray(mapped[where])

    def as_float(self, path: Path) -> FlatColumn:
        """The same integers as float64 in another file. Raises OverflowError if that is not exact."""
        converted = FlatColumn(path, np.dtype(np.float64))
        for start in range(0, len(self), _REWRITE_CHUNK):
            part = self[start : start + _REWRITE_CHUNK]
            if _largest(part) > _LARGEST_EXACT:
                raise OverflowError
            converted.append(part)
        return converted


@dataclass
class Spill:
    """Columns of all inputs, one after the other; ids are codes of tables that are complete at the end.

    Sources and destinations have a table each if ``bipartite``, else they share one. ``negatives`` (h, n) has a row
    of codes for each event of validation and test, in the order of reading. Features that become int8 are kept as
    float32, since their scale depends on all of them. With ``class_names``, edge labels are numbers of these
    classes, else values of any kind. ``earliest`` and ``latest`` are of all times, ``time_step`` what they were rounded
    to.
    """

    folder: Path
    bipartite: bool
    feature_dtype: np.dtype[Any]
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        self.src_ids = IdTable()
        self.dst_ids = IdTable() if self.bipartite else self.src_ids
        self.edge_classes = IdTable(of_classes=True)
        self.src = FlatColumn(self.folder / "src", np.dtype(np.int32))
        self.dst = FlatColumn(self.folder / "dst", np.dtype(np.int32))
        self.time = FlatColumn(self.folder / "time", np.dtype(np.int64))
        self.optional: dict[str, FlatColumn] = {}
        self.negatives: FlatColumn | None = None
        self.largest_features: NDArray[np.float32] = np.zeros(1, np.float32)
        self.dropped_rows = 0
        self.time_unit: str | None = None
        self.time_step = 0.0
        self.earliest: int | float = np.inf
        self.latest: int | float = -np.inf

    def append(self, raw: RawEvents, origin: Origin) -> None:
        """Add a chunk. Raises InputError if it does not match the chunks before it."""
        first = len(self.src) == 0
        self._check_unit(raw.time_unit, origin)
        if raw.class_names:
            self.class_names = raw.class_names  # the same for all inputs, since --columns names them
        optional: dict[str, NDArray[Any] | None] = {
            "edge_label": None if raw.edge_label is None else self._class_codes(raw.edge_label, origin),
            "node_label": raw.node_label,
            "features": None if raw.features is None else self._as_feature_dtype(raw.features, origin),
            "edge_classes": raw.edge_classes,
            "split": raw.split,
        }
        self._append_time(raw.time, origin)
        self.src.append(self.src_ids.encode(raw.src, origin))
        self.dst.append(self.dst_ids.encode(raw.dst, origin))
        for name, rows in optional.items():
            self._append_optional(name, rows, origin, first)
        if raw.negatives is not None:
            self._append_negatives(raw.negatives, origin)
        self.dropped_rows += raw.dropped_rows
        self.time_step = max(self.time_step, raw.time_step)

    def _append_negatives(self, negatives: NDArray[np.int64], origin: Origin) -> None:
        """Add codes of destinations, −1 as padding; these become nodes even if they have no event."""
        is_node = negatives >= 0
        row = first_true(~is_node.any(axis=1))
        if row is not None:
            raise origin.error(
                0, "each event of validation and test needs a negative, one from here on has none: add one"
            )
        negatives = np.take_along_axis(negatives, np.argsort(~is_node, axis=1, kind="stable"), axis=1)
        is_node = negatives >= 0  # padding comes last
        codes = np.full(negatives.shape, -1, np.int32)
        codes[is_node] = self.dst_ids.encode(pa.array(negatives[is_node]), origin)
        width = negatives.shape[1]
        if self.negatives is None:
            self.negatives = FlatColumn(self.folder / "negatives", codes.dtype, width)
        if self.negatives.width != width:
            raise origin.error(
                0,
                f"every input must have as many negatives per event, {self.negatives.width} before and {width} "
                "here: pad with -1",
            )
        self.negatives.append(codes)

    def _class_codes(self, labels: pa.Array, origin: Origin) -> NDArray[np.int32]:
        if self.class_names is None:
            return self.edge_classes.encode(labels, origin)
        return np.asarray(labels, np.int32)

    def _append_time(self, time: Times, origin: Origin) -> None:
        """Times are integers until the first fraction, which converts all before it to floats, if that is exact."""
        if len(time):
            self._add_extremes(time, origin)
        integers = time.dtype == np.int64 and self.time.dtype == np.int64
        if not integers:
            try:
                if self.time.dtype == np.int64:
                    self.time = self.time.as_float(self.folder / "time_as_float")
                exact = time.dtype != np.int64 or _largest(time) <= _LARGEST_EXACT
            except OverflowError:
                exact = False
            if not exact:
                is_odd = np.floor(time) != time if time.dtype != np.int64 else np.abs(time) > _LARGEST_EXACT
                raise origin.error(
                    first_true(is_odd) or 0,
                    "times beyond 2^53 and times with fractions cannot both be exact: convert all times to "
                    "integers of a smaller unit",
                )
        self.time.append(time)

    def _add_extremes(self, time: Times, origin: Origin) -> None:
        row = first_true(np.abs(time) > _LARGEST_TIME) if time.dtype != np.int64 else None
        if row is not None:
            raise origin.error(
                row,
                f"times must lie between -10^30 and 10^30, found {time[row]:g}: convert them to another unit",
            )
        self.earliest = min(self.earliest, time.min().item())
        self.latest = max(self.latest, time.max().item())
        if self.latest - self.earliest > _LARGEST_SPAN and time.dtype == np.int64:
            raise origin.error(
                int(np.argmax(time)) if time.max() == self.latest else int(np.argmin(time)),
                f"times must span less than 2^63, found {self.earliest} to {self.latest}: use a larger unit",
            )

    def check_span(self, place: Path | str) -> None:
        """Raise InputError if all times are so close that training could not tell them apart."""
        span = self.latest - self.earliest
        if 0 < span < _LEAST_SPAN:
            raise InputError(
                f"{place}: times must be equal or span at least 10^-30, found {span:g}: convert them to a smaller unit"
            )

    def _append_optional(self, name: str, rows: NDArray[Any] | None, origin: Origin, first: bool) -> None:
        if rows is not None and first:
            width = rows.shape[1] if rows.ndim == 2 else 0
            self.optional[name] = FlatColumn(self.folder / name, rows.dtype, width)
        column = self.optional.get(name)
        found = "none" if rows is None else f"{rows.shape[1] if rows.ndim == 2 else 1}"
        expected = "none" if column is None else f"{max(column.width, 1)}"
        if found != expected:
            raise origin.error(
                0,
                f"every input must have the same {name} columns, {expected} before and {found} here: "
                "prepare files of one kind together",
            )
        if column is not None and rows is not None:
            column.append(rows)

    @property
    def edge_scale(self) -> NDArray[np.float32] | None:
        """(dim,) float32 scale of int8 features; None for floats and without features."""
        if self.feature_dtype != np.int8 or "features" not in self.optional:
            return None
        return int8_scale(self.largest_features)

    def _as_feature_dtype(self, features: NDArray[np.float32], origin: Origin) -> NDArray[Any]:
        # Not the maximum of absolute values, which would take the memory of another chunk.
        largest = np.maximum(features.max(axis=0, initial=0), -features.min(axis=0, initial=0))
        self.largest_features = np.maximum(largest, self.largest_features)
        if self.feature_dtype == np.int8:
            return features
        with np.errstate(over="ignore"):
            rows = features.astype(self.feature_dtype, copy=False)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            row = int(np.argmin(finite))
            largest = float(np.abs(features[row]).max())
            raise origin.error(
                row,
                f"a feature of size {largest:g} does not fit {self.feature_dtype}: use --feature-dtype float32",
            )
        return rows

    def _check_unit(self, unit: str, origin: Origin) -> None:
        if self.time_unit not in (None, unit):
            raise origin.error(
                0,
                f"times of all inputs must have one unit, '{self.time_unit}' before, '{unit}' here: "
                "convert them",
            )
        self.time_unit = unit

    def edge_class_numbers(self) -> tuple[NDArray[np.int64], tuple[str, ...]]:
        """Class (n,) int64 of each code in ``edge_label``, −1 if it is unknown, and the classes' names in order.

        Where all classes are integers, the negative ones are unknown. With known names, a code is a class or −1.
        """
        if self.class_names is not None:
            return np.append(np.arange(len(self.class_names)), -1), self.class_names
        if "edge_label" not in self.optional:
            return np.empty(0, np.int64), ()
        ranks, names = self.edge_classes.ranks_and_ids()
        num_unknown = int(np.searchsorted(names, 0)) if names.dtype == np.int64 else 0
        return np.maximum(ranks - num_unknown, -1), tuple(str(name) for name in names[num_unknown:])

    def event_bytes(self) -> int:
        """Bytes of one event in all columns."""
        columns = [self.src, self.dst, self.time, *self.optional.values()]
        return sum(column.row_bytes for column in columns)


def _largest(integers: AnyTimes) -> int:
    """Largest absolute value of integers (n,), of which the least has none in int64."""
    return max(int(integers.max(initial=0)), -int(integers.min(initial=0)))


class TimeColumn(Protocol):
    """Times that can be read by slice and gathered by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice | NDArray[np.int64]) -> AnyTimes: ...


def stable_time_order(time: TimeColumn, chunk_events: int) -> Iterator[slice | NDArray[np.int64]]:
    """Positions that sort ``time`` stably, in consecutive pieces of about ``chunk_events``.

    Sorted input yields slices. Other input is cut into time ranges of about a chunk each (estimated from a sample);
    the events of a range are gathered in one scan, which skips chunks outside the range, and sorted. Each cut is a
    range of its own that needs no sort and is yielded chunk by chunk, so that ties of any size fit in memory.
    """
    pieces = [
        slice(start, min(start + chunk_events, len(time))) for start in range(0, len(time), chunk_events)
    ]
    low, high, in_order = _extremes(time, pieces)
    if in_order:
        yield from pieces
        return
    for after, before in _ranges(_quantiles(time, chunk_events)):
        touched = np.flatnonzero((high >= after) & (low <= before))
        found = (
            pieces[index].start + np.flatnonzero(_within(time[pieces[index]], after, before))
            for index in touched
        )
        if after == before:
            yield from (positions for positions in found if len(positions))
        elif len(positions := np.concatenate([np.empty(0, np.int64), *found])):
            yield positions[np.argsort(time[positions], kind="stable")]


def _extremes(time: TimeColumn, pieces: list[slice]) -> tuple[AnyTimes, AnyTimes, bool]:
    """Smallest and largest time of each piece, and whether all times ascend."""
    low: list[Any] = []
    high: list[Any] = []
    in_order = True
    for piece in pieces:
        part = time[piece]
        in_order = in_order and bool((part[1:] >= part[:-1]).all()) and (not high or part[0] >= high[-1])
        low.append(part.min())
        high.append(part.max())
    return np.array(low), np.array(high), in_order


def _quantiles(time: TimeColumn, chunk_events: int) -> AnyTimes:
    """Times about ``chunk_events`` apart in rank, ascending and distinct."""
    stride = max(1, len(time) // _SAMPLES)
    sample = np.sort(time[np.arange(0, len(time), stride)])
    return np.unique(sample[:: max(1, len(sample) * chunk_events // len(time))])


def _ranges(cuts: AnyTimes) -> Iterator[tuple[Any, Any]]:
    """(after, before) of every range: each cut alone, as (cut, cut), and the open interval between two."""
    bounds = [-np.inf, *cuts, np.inf]
    for after, before in pairwise(bounds):
        yield after, before
        if before is not bounds[-1]:
            yield before, before


def _within(part: AnyTimes, after: Any, before: Any) -> NDArray[np.bool_]:
    return np.asarray(part == after if after == before else (part > after) & (part < before))
