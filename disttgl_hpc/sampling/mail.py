"""Pending mail without a mailbox: which event a node's mail is from, and how old, read off the T-CSR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, TCsr, TCsrArrays, position_before
from disttgl_hpc.grid.batching import Batching


@dataclass(frozen=True)
class PendingMail:
    """Mail that nodes still have to digest when a batch begins.

    rows: (n,) int64, which of the asked nodes have mail. event_ids: (n,) int64, the event it came with.
    elapsed: (n,) float32, mail_time − memory_time in the stream's unit; 0 at a node's first update.
    """

    rows: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]

    @classmethod
    def none(cls) -> PendingMail:
        """No node has mail."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def pending_mail(
    tcsr: TCsr, nodes: Ints, batch_first: int, sweep_first: int, batching: Batching
) -> PendingMail:
    """Mail of distinct ``nodes`` (U,) before the batch that begins with event ``batch_first``.

    Mail is from a node's last event in [sweep_first, batch_first). Its memory was last updated when the batch
    of that event was read, with the mail that was pending then: the last event before that batch. Both are
    functions of the T-CSR, so neither time is ever stored or sent (TGN eq. 1-3 with the most recent message).
    """
    return PendingMail(*_pending(tcsr.arrays, nodes, batch_first, sweep_first, batching.cuts))


@compiled
def batch_first_of(event: int, cuts: tuple[int, int, int, int]) -> int:
    """First event of the batch that an event belongs to.

    cuts: as of :class:`~.batching.Batching`; every part begins a batch of its own.
    """
    train_end, validation_end, global_batch, evaluation_batch = cuts
    if event < train_end:
        return event - event % global_batch
    start = train_end if event < validation_end else validation_end
    return event - (event - start) % evaluation_batch


@compiled
def _pending(
    tcsr: TCsrArrays,
    nodes: Ints,
    batch_first: int,
    sweep_first: int,
    cuts: tuple[int, int, int, int],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """The fields of the pending mail."""
    indptr, _, all_event_ids, times = tcsr
    rows, event_ids = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.int64)
    elapsed, found = np.empty(len(nodes), np.float32), 0
    for row in range(len(nodes)):
        begin, end = indptr[nodes[row]], indptr[nodes[row] + 1]
        last = position_before(all_event_ids, begin, end, batch_first) - 1
        if last < begin or all_event_ids[last] < sweep_first:
            continue
        first = batch_first_of(all_event_ids[last], cuts)
        earlier = last - 1  # all nodes of a batch together step back over its events at most twice
        while earlier >= begin and all_event_ids[earlier] >= first:
            earlier -= 1
        updated = earlier >= begin and all_event_ids[earlier] >= sweep_first
        rows[found], event_ids[found] = row, all_event_ids[last]
        elapsed[found] = times[last] - times[earlier] if updated else 0
        found += 1
    return rows[:found].copy(), event_ids[:found].copy(), elapsed[:found].copy()
