"""Where training, validation and test begin, and the negatives that an input gives for what is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import index_dtype
from disttgl_hpc.ingest.ids import NodeNumbers
from disttgl_hpc.ingest.settings import SHARES, PrepareSettings
from disttgl_hpc.ingest.source import PARTS
from disttgl_hpc.ingest.spill import FlatColumn, Spill, stable_time_order
from disttgl_hpc.log import get_logger

log = get_logger(__name__)


def split_of(settings: PrepareSettings, spill: Spill) -> Split:
    """Bounds of training and validation: by time or share if asked for, else the input's own.

    Raises InputError where the input's own split does not follow the times.
    """
    num_events = len(spill.time)
    if settings.before is not None and settings.keep_split:
        split = settings.before.stream.split
    elif settings.split_times is not None:
        split = _by_time(settings.split_times, spill.time, settings.chunk_events)
    elif settings.split is None and "split" in spill.optional:
        split = _own(spill, settings.chunk_events)
    else:
        training, validation, _ = settings.split or SHARES
        split = Split(int(num_events * training), int(num_events * (training + validation)))
    ends = (0, split.train_end, split.validation_end, num_events)
    for name, first, end in zip(("training", "validation", "test"), ends[:-1], ends[1:], strict=True):
        if first == end:
            log.warning("none of %d events falls into %s: training needs some in each part", num_events, name)
    return split


def _by_time(begins: tuple[float, float], time: FlatColumn, chunk_events: int) -> Split:
    before = np.zeros(2, np.int64)
    for start in range(0, len(time), chunk_events):
        before += (time[start : start + chunk_events] < np.array(begins)[:, None]).sum(axis=1)
    return Split(int(before[0]), int(before[1]))


def _own(spill: Spill, chunk_events: int) -> Split:
    """The input's own split, after a look at all events in their order."""
    parts, counts, last = spill.optional["split"], np.zeros(3, np.int64), 0
    for where in stable_time_order(spill.time, chunk_events):
        found = np.concatenate([[last], parts[where]])
        falls = np.flatnonzero(np.diff(found) < 0)
        if len(falls):
            at = int(falls[0])
            raise InputError(
                f"the input's own split must follow the times, but at time {spill.time[where][at]} an event of "
                f"{PARTS[found[at + 1]]} comes after one of {PARTS[found[at]]}: --split 0.70/0.15/0.15 or "
                "--split-times instead"
            )
        counts += np.bincount(found[1:], minlength=3)
        last = int(found[-1])
    return Split(int(counts[0]), int(counts[0] + counts[1]))


@dataclass(frozen=True)
class _NegativeRows:
    """Given negatives (h, n) as nodes of a store, read when a slice of them is asked for.

    codes: as they were set down. rows (h,): where in them each event's stand. node_of_code: nodes, −1 at the end.
    """

    codes: FlatColumn
    rows: NDArray[np.int64]
    node_of_code: NDArray[np.integer]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self.rows) * self.codes.width * self.node_of_code.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> NDArray[np.integer]:
        """Rows of consecutive events."""
        nodes: NDArray[np.integer] = self.node_of_code[self.codes[self.rows[part]]]
        return nodes


def given_negatives(
    settings: PrepareSettings, spill: Spill, nodes: NodeNumbers, split: Split
) -> tuple[_NegativeRows | None, _NegativeRows | None]:
    """Negatives of validation and test in their events' order, or None; they belong to the input's own split."""
    if spill.negatives is None:
        return None, None
    if settings.split is not None or settings.split_times is not None:
        log.warning("the input's evaluation negatives belong to its own split, and are left out with another")
        return None, None
    # The code −1 finds the last entry.
    node_of_code: NDArray[np.integer] = np.append(nodes.dst, -1).astype(index_dtype(len(nodes.ids)))
    held_out = np.flatnonzero(spill.optional["split"][0 : len(spill.time)])
    positions, first = [], 0
    for where in stable_time_order(spill.time, settings.chunk_events):
        ordered = np.arange(*where.indices(len(spill.time))) if isinstance(where, slice) else where
        positions.append(ordered[max(0, split.train_end - first) :])
        first += len(ordered)
    rows = np.searchsorted(held_out, np.concatenate(positions))
    num_validation = split.validation_end - split.train_end
    validation, test = (
        _NegativeRows(spill.negatives, part, node_of_code)
        for part in (rows[:num_validation], rows[num_validation:])
    )
    return validation, test
