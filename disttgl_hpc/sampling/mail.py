"""Pending mail without a mailbox: a node's mail event and its age are computed from the T-CSR.

With COMB = mean, the mail is the mean over a node's events of a batch instead of its last event (TGN, §3.1).
A node with the events e₁ < … < e_m in a global batch then has the mail

    peer = mean of memory'(other end of e_l),   features = mean of features of e_l,   mail_time = time of e_m

where memory' is the memory updated when the batch was read. A self-loop is one event whose other end is the
node itself. TGN's mean aggregator also takes the time of the last event, but it averages the encoded times of
the single events; here mail_time − memory_time is encoded, as for the most recent mail. In the node's stored
row, the mean of the peers takes the place of the last peer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.tcsr import Ints, TCsr, TCsrArrays, position_before
from disttgl_hpc.grid.schedule import Batching
from disttgl_hpc.sampling.mfg import LastEvents, Mfg, NodeIndex


@dataclass(frozen=True)
class PendingMail:
    """Mail that has not updated the memory yet when a batch begins.

    rows: (n,) int64, positions of the nodes with mail among the given nodes. event_ids: (n,) int64, events of
    the mail. elapsed: (n,) float32, mail_time − memory_time in the stream's unit; 0 at a node's first update.
    """

    rows: NDArray[np.int64]
    event_ids: NDArray[np.int64]
    elapsed: NDArray[np.float32]

    @classmethod
    def none(cls) -> PendingMail:
        """Mail of no node."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


def mail_for(
    config: TrainConfig, tcsr: TCsr, nodes: Ints, events: tuple[int, int], batching: Batching
) -> PendingMail:
    """Pending mail of ``nodes`` (U,) by ``config.comb``; none without node memory.

    events: those of the sweep before the batch, [sweep_first, batch_first), see :func:`pending_mail`.
    """
    if not config.node_memory:
        return PendingMail.none()
    sweep_first, batch_first = events
    mail = pending_mail(tcsr, nodes, batch_first, sweep_first, batching)
    return MeanMail.of(mail, tcsr, nodes, batching) if config.comb == "mean" else mail


def pending_mail(
    tcsr: TCsr, nodes: Ints, batch_first: int, sweep_first: int, batching: Batching
) -> PendingMail:
    """Mail of distinct ``nodes`` (U,) before the batch that begins with event ``batch_first``.

    A node's mail is from its last event in [sweep_first, batch_first). Its memory was last updated when the
    batch of that event was read, by the mail pending then: that of the last event before that batch. Both
    times are functions of the T-CSR, so neither is stored or sent (TGN eq. 1-3 with the most recent message).
    """
    return PendingMail(*_pending(tcsr.arrays, nodes, batch_first, sweep_first, batching.cuts))


@compiled
def batch_first_of(event: int, cuts: tuple[int, int, int, int]) -> int:
    """First event of the batch that an event belongs to.

    cuts: see ``grid.schedule.Batching``; every part begins with a new batch.
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
    """The fields of PendingMail."""
    indptr, _, all_event_ids, times = tcsr
    rows, event_ids = np.empty(len(nodes), np.int64), np.empty(len(nodes), np.int64)
    elapsed, found = np.empty(len(nodes), np.float32), 0
    for row in range(len(nodes)):
        begin, end = indptr[nodes[row]], indptr[nodes[row] + 1]
        last = position_before(all_event_ids, begin, end, batch_first) - 1
        if last < begin or all_event_ids[last] < sweep_first:
            continue
        first = batch_first_of(all_event_ids[last], cuts)
        earlier = last - 1  # the nodes of a batch together step back over its events at most twice
        while earlier >= begin and all_event_ids[earlier] >= first:
            earlier -= 1
        updated = earlier >= begin and all_event_ids[earlier] >= sweep_first
        rows[found], event_ids[found] = row, all_event_ids[last]
        elapsed[found] = times[last] - times[earlier] if updated else 0
        found += 1
    return rows[:found].copy(), event_ids[:found].copy(), elapsed[:found].copy()


@dataclass(frozen=True)
class Groups:
    """Groups of table rows to average; no group is empty.

    items: (m,) int64, rows of a table. begins: (n,) int64, ascending, start of each group in ``items``.
    """

    items: NDArray[np.int64]
    begins: NDArray[np.int64]

    def part(self, first: int, last: int) -> Groups:
        """Groups [first, last)."""
        begin, end = (self.begins[at] if at < len(self.begins) else len(self.items) for at in (first, last))
        return Groups(self.items[begin:end], self.begins[first:last] - begin)

    def mean(self, table: NDArray[Any]) -> NDArray[np.float32]:
        """Mean of the rows of ``table`` (…, dim) in each group, summed in order: (n, dim) float32."""
        rows = np.take(table, self.items, axis=0).astype(np.float32, copy=False)
        if not len(self.begins):
            return rows
        sizes = np.diff(self.begins, append=len(self.items))
        sums: NDArray[np.float32] = np.add.reduceat(rows, self.begins, axis=0)
        sums /= sizes[:, None]
        return sums


@dataclass(frozen=True)
class MeanMail(PendingMail):
    """Mail whose features are means over ``events``: one group per row, which ends with its ``event_ids``."""

    events: Groups

    @classmethod
    def of(cls, mail: PendingMail, tcsr: TCsr, nodes: Ints, batching: Batching) -> MeanMail:
        """Pending mail of ``nodes`` (U,), with all events of each node in the batch of its mail."""
        firsts = _batch_firsts(mail.event_ids, batching.cuts)
        entries = _entries(tcsr, nodes[mail.rows], firsts, mail.event_ids + 1)
        events = tcsr.event_ids[entries.items].astype(np.int64)
        return cls(mail.rows, mail.event_ids, mail.elapsed, Groups(events, entries.begins))


def partners_between(tcsr: TCsr, nodes: Ints, first: int, last: int) -> Groups:
    """Partners of ``nodes`` (n,) in events [first, last), at least one each; items are node ids."""
    entries = _entries(tcsr, nodes, np.full(len(nodes), first), np.full(len(nodes), last))
    return Groups(tcsr.neighbors[entries.items].astype(np.int64), entries.begins)


def graph_with_partners(
    index: NodeIndex, mfg: Mfg, tcsr: TCsr, writes: LastEvents, bounds: tuple[int, int]
) -> tuple[Mfg, Groups]:
    """The graph extended by all partners of the written nodes, and these partners as rows of its nodes.

    bounds: first and last event of the global batch. Events of a node in other slices count, so that all
    slices write the same mean; the graph then gets nodes that no root needs, appended to its own.
    """
    partners = partners_between(tcsr, writes.nodes, *bounds)
    nodes, rows = index.number(np.concatenate([mfg.nodes, partners.items]))
    return replace(mfg, nodes=nodes), Groups(rows[len(mfg.nodes) :], partners.begins)


def _entries(tcsr: TCsr, nodes: Ints, firsts: NDArray[np.int64], lasts: NDArray[np.int64]) -> Groups:
    """T-CSR entries of each node's events [first, last); items are positions in the T-CSR."""
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
