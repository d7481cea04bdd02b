"""Pending mail without a mailbox: which event a node's mail is from, and how old, read off the T-CSR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.core.batching import Batching
from disttgl_hpc.core.tcsr import Ints, TCsr


@dataclass(frozen=True)
class PendingMail:
    """Mail that nodes still have to digest when a batch begins.

    rows: (n,) int64, which of the asked nodes have mail. event_ids: (n,) int64, the event it came with.
    elapsed: (n,) float32, mail_time − memory_time in the stream's unit; 0 at a node's first update.
    """

    rows: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]


def pending_mail(
    tcsr: TCsr, nodes: Ints, batch_first: int, sweep_first: int, batching: Batching
) -> PendingMail:
    """Mail of distinct ``nodes`` (U,) before the batch that begins with event ``batch_first``.

    Mail is from a node's last event in [sweep_first, batch_first). Its memory was last updated when the batch
    of that event was read, with the mail that was pending then: the last event before that batch. Both are
    functions of the T-CSR, so neither time is ever stored or sent (TGN eq. 1-3 with the most recent message).
    """
    starts = tcsr.indptr[nodes]
    last = tcsr.positions_before(nodes, np.full(len(nodes), batch_first)) - 1
    rows = _of_this_sweep(tcsr, last, starts, sweep_first)
    last, starts = last[rows], starts[rows]
    event_ids = tcsr.event_ids[last].astype(np.int64)
    earlier = tcsr.positions_before(np.asarray(nodes)[rows], batching.first_of(event_ids)) - 1
    updated = _of_this_sweep(tcsr, earlier, starts, sweep_first)
    elapsed = np.zeros(len(rows), np.float32)
    elapsed[updated] = tcsr.times[last[updated]] - tcsr.times[earlier[updated]]
    return PendingMail(rows, event_ids, elapsed)


def _of_this_sweep(
    tcsr: TCsr, positions: NDArray[np.int64], starts: NDArray[np.int64], sweep_first: int
) -> NDArray[np.int64]:
    """Rows whose position is an entry of their node and an event of the running sweep."""
    rows = np.flatnonzero(positions >= starts)
    return rows[tcsr.event_ids[positions[rows]] >= sweep_first]
