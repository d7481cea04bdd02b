"""Pending mail without a mailbox: which event a node's mail is from, and how old, read off the T-CSR.

COMB = mean: mail that is the mean over a node's events of a batch, not its last event's (TGN, §3.1).

A node with the events e₁ < … < e_m in a global batch is left with the mail

    peer = mean of memory'(other end of e_l),   features = mean of features of e_l,   mail_time = time of e_m

over all l; memory' is the memory that was updated when the batch was read. A self-loop is one event, whose other
end is the node itself. TGN's mean aggregator takes the time of the last event, too; it also averages the encoded
times of the single events, where here mail_time − memory_time is encoded, as for the most recent mail.

Which events these are is read off the T-CSR, as :mod:`~.mail` does; in the node's row, the mean of the peers takes
the place of the last peer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.events.tcsr import Ints, TCsr, TCsrArrays, position_before
from disttgl_hpc.grid.schedule import Batching
from disttgl_hpc.sampling.mfg import LastEvents, Mfg, NodeIndex


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


@dataclass(frozen=True)
class Groups:
    """Things to be averaged, a group after the other, none empty.

    items: (m,) int64, rows of a table. begins: (n,) int64, ascending, where in ``items`` each group begins.
    """

    items: NDArray[np.int64]
    begins: NDArray[np.int64]

    def part(self, first: int, last: int) -> Groups:
        """Groups [first, last)."""
        begin, end = (self.begins[at] if at < len(self.begins) else len(self.items) for at in (first, last))
        return Groups(self.items[begin:end], self.begins[first:last] - begin)

    def mean(self, table: NDArray[Any]) -> NDArray[np.float32]:
        """Mean of the rows of ``table`` (…, dim) in each group, added up in their order: (n, dim) float32."""
        rows = np.take(table, self.items, axis=0).astype(np.float32, copy=False)
        if not len(self.begins):
            return rows
        sizes = np.diff(self.begins, append=len(self.items))
        sums: NDArray[np.float32] = np.add.reduceat(rows, self.begins, axis=0)
        sums /= sizes[:, None]
        return sums


@dataclass(frozen=True)
class MeanMail(PendingMail):
    """Mail whose features are means over ``events``, a group for each of ``rows`` that ends with its event_ids."""

    events: Groups

    @classmethod
    def of(cls, mail: PendingMail, tcsr: TCsr, nodes: Ints, batching: Batching) -> MeanMail:
        """Pending mail of ``nodes`` (U,) with all events of the batch that it comes from."""
        firsts = _batch_firsts(mail.event_ids, batching.cuts)
        entries = _entries(tcsr, nodes[mail.rows], firsts, mail.event_ids + 1)
        events = tcsr.event_ids[entries.items].astype(np.int64)
        return cls(mail.rows, mail.event_ids, mail.elapsed, Groups(events, entries.begins))


def partners_between(tcsr: TCsr, nodes: Ints, first: int, last: int) -> Groups:
    """Other ends of the events [first, last) of each of ``nodes`` (n,), which all have some; items are node ids."""
    entries = _entries(tcsr, nodes, np.full(len(nodes), first), np.full(len(nodes), last))
    return Groups(tcsr.neighbors[entries.items].astype(np.int64), entries.begins)


def graph_with_partners(
    index: NodeIndex, mfg: Mfg, tcsr: TCsr, writes: LastEvents, bounds: tuple[int, int]
) -> tuple[Mfg, Groups]:
    """The graph with all nodes that the mail of a slice's nodes comes from, and who these are; items are its rows.

    bounds: first and last event of the global batch. Its other slices may hold events of this slice's nodes: then
    all of them write the same mean, and the graph gets nodes that no root needs, behind its own.
    """
    partners = partners_between(tcsr, writes.nodes, *bounds)
    nodes, rows = index.number(np.concatenate([mfg.nodes, partners.items]))
    return replace(mfg, nodes=nodes), Groups(rows[len(mfg.nodes) :], partners.begins)


def _entries(tcsr: TCsr, nodes: Ints, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> Groups:
    """Entries of the T-CSR with the events [first, last) of each node; items are positions in it."""
    begin, end = tcsr.positions_before(nodes, firsts), tcsr.positions_before(nodes, lasts)
    begins = np.cumsum(end - begin) - (end - begin)
    return Groups(np.arange((end - begin).sum()) + np.repeat(begin - begins, end - begin), begins)


@compiled
def _batch_firsts(events: NDArray[np.int64], cuts: tuple[int, int, int, int]) -> NDArray[np.int64]:
    """First event of the batch of each event."""
    firsts = np.empty_like(events)
    for row in range(len(events)):
        firsts[row] = batch_first_of(events[row], cuts)
    return firsts
