"""The split into training, validation and test, and the evaluation negatives that an input provides for its own."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.events.tcsr import index_dtype
from disttgl_hpc.ingest.ids import NodeNumbers
from disttgl_hpc.ingest.source import PARTS
from disttgl_hpc.ingest.spill import FlatColumn, Spill, stable_time_order
from disttgl_hpc.log import get_logger

log = get_logger(__name__)

Shares = tuple[Fraction, Fraction, Fraction]
DEFAULT_SHARES: Shares = (Fraction("0.70"), Fraction("0.15"), Fraction("0.15"))


def parse_split(text: str) -> Shares:
    """Three exact shares from ``0.70/0.15/0.15``. Raises ConfigError for other text."""
    try:
        training, validation, test = (Fraction(share) for share in text.split("/"))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--split must be three shares, found '{text}': try 0.70/0.15/0.15") from None
    return training, validation, test


def parse_split_times(text: str) -> tuple[float, float]:
    """Two times from ``T1,T2``, integers kept exact. Raises ConfigError for other text."""
    try:
        first, second = (int(time) if time.strip().isdecimal() else float(time) for time in text.split(","))
    except ValueError:
        raise ConfigError(f"--split-times must be two numbers T1,T2, found '{text}': omit it") from None
    return first, second


def split_by_times(begins: tuple[float, float], spill: Spill, chunk_events: int) -> Split:
    """The split whose validation and test begin at these times."""
    before = np.zeros(2, np.int64)
    for start in range(0, len(spill.time), chunk_events):
        before += (spill.time[start : start + chunk_events] < np.array(begins)[:, None]).sum(axis=1)
    return Split(int(before[0]), int(before[1]))


def split_by_shares(shares: Shares, num_events: int) -> Split:
    """The split that puts these shares of the events into training, validation and test, rounded down exactly."""
    training, validation, _ = shares
    return Split(int(num_events * training), int(num_events * (training + validation)))


def split_of_input(spill: Spill, chunk_events: int) -> Split:
    """The split that the input provides. Raises InputError if it does not follow the events' times."""
    parts, counts, last = spill.optional["split"], np.zeros(3, np.int64), 0
    for where in stable_time_order(spill.time, chunk_events):
        found = np.concatenate([[last], parts[where]])
        falls = np.flatnonzero(np.diff(found) < 0)
        if len(falls):
            at = int(falls[0])
            raise InputError(
                f"the input's split must follow the times, but at time {spill.time[where][at]} an event of "
                f"{PARTS[found[at + 1]]} comes after one of {PARTS[found[at]]}: use --split 0.70/0.15/0.15 or "
                "--split-times"
            )
        counts += np.bincount(found[1:], minlength=3)
        last = int(found[-1])
    return Split(int(counts[0]), int(counts[0] + counts[1]))


def warn_of_empty_parts(split: Split, num_events: int) -> None:
    """Warn if training, validation or test has no event."""
    ends = (0, split.train_end, split.validation_end, num_events)
    for name, first, end in zip(("training", "validation", "test"), ends[:-1], ends[1:], strict=True):
        if first == end:
            log.warning(
                "the split leaves %s without events, of %d in all: training a model needs some",
                name,
                num_events,
            )


@dataclass(frozen=True)
class _NegativeRows:
    """Provided negatives (h, n) as nodes of a store; a slice is read when it is accessed.

    codes: in the order of the input. rows (h,): the row of each event in them. node_of_code: nodes, −1 at the end.
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


def negatives_of_input(
    spill: Spill, nodes: NodeNumbers, split: Split, chunk_events: int
) -> tuple[_NegativeRows | None, _NegativeRows | None]:
    """The input's negatives of validation and test, in the order of their events; None if it has none.

    ``split`` must be the input's own.
    """
    if spill.negatives is None:
        return None, None
    # The code −1 indexes the last entry.
    node_of_code: NDArray[np.integer] = np.append(nodes.dst, -1).astype(index_dtype(len(nodes.ids)))
    held_out = np.flatnonzero(spill.optional["split"][0 : len(spill.time)])
    positions, first = [], 0
    for where in stable_time_order(spill.time, chunk_events):
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
