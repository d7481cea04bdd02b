"""Stable order by time of more events than fit in memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

_SAMPLES = 65_536
Times = NDArray[Any]  # int64 or float64; comparing arrays of either kind is beyond what types can say


class TimeColumn(Protocol):
    """What is asked of the times: a length, slices read in, elements gathered."""

    def __len__(self) -> int: ...

    def __getitem__(self, where: slice | NDArray[np.int64]) -> Times: ...


def stable_time_order(time: TimeColumn, chunk_events: int) -> Iterator[slice | NDArray[np.int64]]:
    """Positions that sort ``time`` stably, in consecutive pieces of about ``chunk_events``.

    Input in order gives slices. Else the times are cut into ranges that hold about a chunk each (estimated
    from a sample); the events of a range are gathered in one scan, which skips the chunks that lie outside of
    it, and sorted. A time that many events share is a range of its own: it needs no sort and is passed on as
    it is found, so no tie is too large for memory.
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


def _extremes(time: TimeColumn, pieces: list[slice]) -> tuple[Times, Times, bool]:
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


def _quantiles(time: TimeColumn, chunk_events: int) -> Times:
    """Times about ``chunk_events`` apart in rank, ascending and distinct."""
    stride = max(1, len(time) // _SAMPLES)
    sample = np.sort(time[np.arange(0, len(time), stride)])
    return np.unique(sample[:: max(1, len(sample) * chunk_events // len(time))])


def _ranges(cuts: Times) -> Iterator[tuple[Any, Any]]:
    """(after, before) of every range: each cut alone, as (cut, cut), and what lies strictly between two."""
    bounds = [-np.inf, *cuts, np.inf]
    for after, before in pairwise(bounds):
        yield after, before
        if before is not bounds[-1]:
            yield before, before


def _within(part: Times, after: Any, before: Any) -> NDArray[np.bool_]:
    return np.asarray(part == after if after == before else (part > after) & (part < before))
