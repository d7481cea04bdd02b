"""Captured events: the information that the node memory loses in larger batches (DistTGL, §3.2).

A node keeps only the last mail of a batch, so one of its events in a batch is captured and the others are lost;
and all events of a batch read the memory as it was before the batch. Both follow from the event ids in the
T-CSR: a mail survives in batches of size B iff the node's next event is in another batch.
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
from disttgl_hpc.events.tcsr import TCsr, TCsrArrays

_MOST_AGES = 1 << 19  # for each batch size; enough for quantiles within a tenth of a percent in rank


@dataclass(frozen=True)
class Captured:
    """Captured events of a stream in global batches of ``batch`` events.

    share: mails that survive the most-recent rule over all mails. Every event sends a mail to each of its nodes; a
    self-loop has one node and one mail. It is 1 for a batch of one event.
    cold: share of all nodes of events without an event in an earlier batch.
    age_events, age_time: for the other nodes, quantiles of the age of their last event in the memory, in events and
    in the stream's unit of time. age_stride: ages are of every n-th mail.
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
    """Captured events of a stream's first ``num_events`` events for each batch size in ``batches``, in one pass.

    Shares are exact. Quantiles are of all ages or, if there are more than ``most_ages``, of every n-th one.
    Raises ConfigError for a batch or a stream without events.
    """
    if min(batches) < 1 or num_events < 1:
        raise ConfigError(
            f"batches and streams have at least one event: got {min(batches)} of {num_events}; give 1 or more"
        )
    stops = tcsr.positions_before(
        np.arange(len(tcsr.indptr) - 1), np.full(len(tcsr.indptr) - 1, num_events, np.int64)
    )
    mails = int((stops - tcsr.indptr[:-1]).sum())
    stride = -(-mails // most_ages)
    survivors, cold, ages, events, times = _count(
        tcsr.arrays, stops, np.asarray(batches, np.int64), stride, -(-mails // stride)
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
    """Captured share by batch size, see :class:`Captured`."""
    return [found.share for found in captured_events(tcsr, num_events, batches, most_ages=1)]


def powers_of_two(num_events: int) -> list[int]:
    """Batch sizes 1, 2, 4, … below ``num_events``, and ``num_events`` itself."""
    return [1 << power for power in range((num_events - 1).bit_length())] + [num_events]


_Counts = NDArray[np.int64]


@compiled
def _count(
    tcsr: TCsrArrays, stops: _Counts, sizes: _Counts, stride: int, room: int
) -> tuple[_Counts, _Counts, _Counts, _Counts, NDArray[np.float64]]:
    """By batch size: survivors, cold nodes, number of ages, ages of every ``stride``-th entry in events and time.

    stops: end of each node's entries to count.

    The entries of a node stay in the cache while all sizes are counted, so main memory is read once.
    """
    indptr, _, event_ids, all_times = tcsr
    survivors, cold = np.zeros(len(sizes), np.int64), np.zeros(len(sizes), np.int64)
    ages = np.zeros(len(sizes), np.int64)
    events = np.empty((len(sizes), room), np.int64)
    times = np.empty((len(sizes), room), np.float64)
    before = 0
    for node in range(len(indptr) - 1):
        begin, stop = indptr[node], stops[node]
        for index in range(len(sizes)):
            batch_end, first = 0, begin  # end of the current batch, and the node's first entry in it
            for entry in range(begin, stop):
                if event_ids[entry] >= batch_end:
                    batch_end = (event_ids[entry] // sizes[index] + 1) * sizes[index]
                    first = entry
                    survivors[index] += 1  # one mail for each batch with the node
                if first == begin:
                    cold[index] += 1
                elif (before + entry - begin) % stride == 0:
                    events[index, ages[index]] = event_ids[entry] - event_ids[first - 1]
                    times[index, ages[index]] = all_times[entry] - all_times[first - 1]
                    ages[index] += 1
        before += stop - begin
    return survivors, cold, ages, events, times
