"""Captured events: what a larger batch hides from the node memory (DistTGL, §3.2).

A node keeps the last mail of a batch only, so of its events in one batch one is captured and the others are lost;
and whoever is in a batch sees the memory as it was when the batch began. Both follow from the event ids in the
T-CSR alone: a mail survives in batches of size B iff the node's next event lies in another batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.statistics import Quantiles, quantiles
from disttgl_hpc.events.tcsr import TCsr, TCsrArrays, position_before

_MOST_AGES = 1 << 19  # of each batch size: its quantiles are then known to a tenth of a percent of their rank


@dataclass(frozen=True)
class Captured:
    """What global batches of ``batch`` events leave of a stream.

    share: mails that survive the most-recent rule over all mails. Every event sends a mail to each of its nodes; a
    self-loop is one node with one mail. It is 1 for a batch of one event.
    cold: of all nodes of events, the share that the memory knows nothing of when their batch begins.
    age_events, age_time: how far back lies the last event that the memory of the others has seen, at levels from
    the least to the most, in events and in the stream's unit of time. age_stride: the ages are those of every n-th
    mail; 1: of all.
    """

    batch: int
    share: float
    cold: float
    age_events: Quantiles
    age_time: Quantiles
    age_stride: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def captured_events(
    tcsr: TCsr, num_events: int, batches: Sequence[int], *, most_ages: int = _MOST_AGES
) -> tuple[Captured, ...]:
    """What batches of each size in ``batches`` capture of a stream's first ``num_events`` events, in one pass.

    Shares are exact; quantiles are of all ages or, where there are more than ``most_ages``, of every n-th.
    Raises ConfigError for a batch of no events.
    """
    if min(batches) < 1 or num_events < 1:
        raise ConfigError(f"batches and streams have at least one event: got {min(batches)} of {num_events}")
    stops = tcsr.positions_before(
        np.arange(len(tcsr.indptr) - 1), np.full(len(tcsr.indptr) - 1, num_events, np.int64)
    )
    mails = int((stops - tcsr.indptr[:-1]).sum())
    stride = -(-mails // most_ages)
    survivors, cold, ages, events, times = _count(
        tcsr.arrays, np.asarray(batches, np.int64), num_events, stride, -(-mails // stride)
    )
    return tuple(
        Captured(
            batch,
            survivors[index].item() / mails,
            cold[index].item() / mails,
            quantiles(events[index, : ages[index]]),
            quantiles(times[index, : ages[index]]),
            stride,
        )
        for index, batch in enumerate(batches)
    )


def captured_share(tcsr: TCsr, num_events: int, batches: Sequence[int]) -> list[float]:
    """Captured share alone, see :class:`Captured`."""
    return [found.share for found in captured_events(tcsr, num_events, batches, most_ages=1)]


def powers_of_two(num_events: int) -> list[int]:
    """Batch sizes 1, 2, 4, … below ``num_events``, and ``num_events`` itself."""
    return [1 << power for power in range((num_events - 1).bit_length())] + [num_events]


_Counts = NDArray[np.int64]


@compiled
def _count(
    tcsr: TCsrArrays, sizes: _Counts, num_events: int, stride: int, room: int
) -> tuple[_Counts, _Counts, _Counts, _Counts, NDArray[np.float64]]:
    """Survivors, cold nodes, and ages (every ``stride``-th entry's) in events and time, for each batch size.

    A node's entries stay in the cache while they are walked once for each size, so memory is passed over once.
    """
    indptr, _, event_ids, all_times = tcsr
    survivors, cold = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    ages = np.zeros(len(sizes), np.int64)
    events = np.empty((len(sizes), room), np.int64)
    times = np.empty((len(sizes), room), np.float64)
    before = 0
    for node in range(len(indptr) - 1):
        begin = indptr[node]
        stop = position_before(event_ids, begin, indptr[node + 1], num_events)
        for index in range(len(sizes)):
            batch_end, first = 0, begin  # of the batch at hand, and the node's first entry in it
            for entry in range(begin, stop):
                if event_ids[entry] >= batch_end:
                    batch_end = (event_ids[entry] // sizes[index] + 1) * sizes[index]
                    first = entry
                    survivors[index] += 1  # one mail for each batch that the node is in
                if first == begin:
                    cold[index] += 1
                elif (before + entry - begin) % stride == 0:
                    events[index, ages[index]] = event_ids[entry] - event_ids[first - 1]
                    times[index, ages[index]] = all_times[entry] - all_times[first - 1]
                    ages[index] += 1
        before += stop - begin
    return survivors, cold, ages, events, times
