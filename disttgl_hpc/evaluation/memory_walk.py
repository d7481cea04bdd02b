"""Carrying a node memory along the stream with a trained model: what evaluation and every query begin with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.batching import Batching
from disttgl_hpc.grid.schedule import slice_bounds
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.model.inputs import NodeInputs
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.sampling.comb import Groups, MeanMail, partners_between
from disttgl_hpc.sampling.mail import PendingMail, pending_mail
from disttgl_hpc.sampling.mfg import NodeIndex

NODES_AT_ONCE = 256

Rows = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Distinct nodes (n,) and their rows (n, 2·dim_memory), in several pieces."""


class MemoryWalk:
    """Reads and moves on a memory (N, 2·dim_memory) that has seen a stream's events from the first one on."""

    def __init__(
        self, stream: EventStream, config: TrainConfig, batching: Batching, inputs: InputBuilder
    ) -> None:
        self._stream, self._config, self._batching, self._inputs = stream, config, batching, inputs
        self.index = NodeIndex(stream.num_nodes)

    def nodes(self, state: NDArray[np.float32], nodes: NDArray[np.int64], first: int) -> NodeInputs:
        """Memory of distinct ``nodes`` with the mail that is pending before event ``first``.

        ``state`` is the memory there: after :meth:`updates` of all batches before, the last of which ends there.
        """
        return self._inputs.nodes(nodes, self._mail(nodes, first), state[nodes])

    def updates(
        self,
        model: Tgn,
        state: NDArray[np.float32],
        first: int,
        last: int,
        *,
        parts: int = 1,
        index: int = 0,
    ) -> Rows:
        """What events [first, last), one batch or the beginning of one, leave in the memory ``state``.

        Of ``parts`` that share the work: the units that fall to the one of this ``index``.
        """
        writes = self.index.last_events(self._stream.src[first:last], self._stream.dst[first:last])
        peers = Groups(writes.partners, np.arange(len(writes.nodes)))
        if self._config.comb == "mean":
            peers = partners_between(self._stream.tcsr, writes.nodes, first, last)
        updates = []
        for unit in units(0, len(writes.nodes), NODES_AT_ONCE, parts=parts, index=index):
            nodes, partners = writes.nodes[slice(*unit)], peers.part(*unit)
            involved, rows = self.index.number(np.concatenate([nodes, partners.items]))
            memory = model.update_memory(self.nodes(state, involved, first)).cpu().numpy()
            peer = replace(partners, items=rows[len(nodes) :]).mean(memory)
            updates.append((nodes, np.concatenate([memory[rows[: len(nodes)]], peer], axis=1)))
        return updates

    def _mail(self, nodes: NDArray[np.int64], first: int) -> PendingMail:
        """Pending mail of ``nodes`` by the rule of ``config.comb``; none without node memory."""
        if not self._config.node_memory:
            return PendingMail.none()
        mail = pending_mail(self._stream.tcsr, nodes, first, 0, self._batching)
        if self._config.comb == "mean":
            mail = MeanMail.of(mail, self._stream.tcsr, nodes, self._batching)
        return mail


def write(state: NDArray[np.float32], updates: Rows) -> None:
    """Set the rows of a memory that :meth:`MemoryWalk.updates` gave."""
    for nodes, rows in updates:
        state[nodes] = rows


def units(first: int, last: int, size: int, *, parts: int = 1, index: int = 0) -> list[tuple[int, int]]:
    """Ranges of at most ``size`` that cover [first, last): those that fall to one of ``parts`` members."""
    ranges = [(start, min(start + size, last)) for start in range(first, last, size)]
    return ranges[slice(*slice_bounds(0, len(ranges), parts, index))]
