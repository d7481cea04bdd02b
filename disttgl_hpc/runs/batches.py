"""From an assignment of the schedule to the arrays of a local batch: roots, neighbours, mail, dropout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.batch import LastEvents, Mfg, NodeIndex, last_events
from disttgl_hpc.core.draws import Purpose, keep_mask
from disttgl_hpc.core.mail import PendingMail, pending_mail
from disttgl_hpc.core.negatives import NegativeSampler, training_candidates
from disttgl_hpc.core.sampler import event_bounds, recent_neighbors
from disttgl_hpc.core.schedule import Assignment, Coordinates, batch_bounds, slice_bounds
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.runs.plan import RunPlan


@dataclass(frozen=True)
class Pass:
    """One pass over a local batch with one negative set.

    mfg: roots ordered src ‖ dst ‖ negatives. mail: of ``mfg.nodes``. positions: (U,) where ``mfg.nodes`` stand
    among the batch's nodes. keep: (R, num_heads, K) dropout mask or None.
    """

    mfg: Mfg
    mail: PendingMail
    positions: NDArray[np.int64]
    keep: NDArray[np.bool_] | None


@dataclass(frozen=True)
class LocalBatch:
    """Events [first, last) of one trainer with everything its j passes need except the node memory.

    nodes: (n,) int64, all nodes of all passes, which one read of the memory serves. writes: who is written.
    """

    first: int
    last: int
    nodes: NDArray[np.int64]
    passes: tuple[Pass, ...]
    writes: LastEvents

    @property
    def num_events(self) -> int:
        """Number of events, at most the configured local batch."""
        return self.last - self.first


class BatchSampler:
    """Samples local batches of a stream; what it returns depends on the assignment alone."""

    def __init__(
        self, stream: EventStream, config: TrainConfig, plan: RunPlan, coordinates: Coordinates
    ) -> None:
        self.stream, self.config, self.shape, self.batching = stream, config, plan.shape, plan.batching
        self._replica = coordinates.memory
        self.index = NodeIndex(stream.num_nodes)
        self._negatives = NegativeSampler(
            stream, training_candidates(stream), config.seed, Purpose.TRAINING_NEGATIVES
        )

    def sample(self, work: Assignment) -> LocalBatch:
        """Sample the local batch of ``work``, an assignment of this trainer, with all its passes."""
        stream, batching = self.stream, self.batching
        batch_first, batch_last = batch_bounds(work.batch, batching.global_batch, stream.split.train_end)
        first, last = slice_bounds(batch_first, batch_last, self.shape.minibatch, work.minibatch)
        graphs = [self._graph(first, last, work.sweep, pass_index) for pass_index in range(self.shape.epoch)]
        nodes = graphs[0].nodes
        if len(graphs) > 1:
            nodes = self.index.distinct(np.concatenate([mfg.nodes for mfg in graphs]))
        mail_since = work.sweep_first_batch * batching.global_batch
        passes = tuple(
            Pass(
                mfg,
                pending_mail(stream.tcsr, mfg.nodes, batch_first, mail_since, batching),
                self.index.rows(nodes, mfg.nodes),
                self._keep(first, last, work.sweep, pass_index),
            )
            for pass_index, mfg in enumerate(graphs)
        )
        return LocalBatch(
            first, last, nodes, passes, last_events(stream.src[first:last], stream.dst[first:last])
        )

    def _graph(self, first: int, last: int, sweep: int, pass_index: int) -> Mfg:
        """Message flow graph of events [first, last) with the negative set of one pass."""
        stream, config = self.stream, self.config
        negatives = self._negatives.draw(
            first,
            last,
            config.negatives_per_event,
            sweep=sweep,
            pass_index=pass_index,
            replica=self._replica,
        )
        roots = np.concatenate([stream.src[first:last], stream.dst[first:last], negatives.T.ravel()])
        repeats = 2 + config.negatives_per_event
        bounds = np.tile(event_bounds(stream.time, first, last), repeats)
        root_time = np.tile(stream.time[first:last], repeats)
        return self.index.mfg(recent_neighbors(stream.tcsr, roots, root_time, bounds, config.num_neighbors))

    def _keep(self, first: int, last: int, sweep: int, pass_index: int) -> NDArray[np.bool_] | None:
        """Dropout mask (R, num_heads, K), drawn per event and ordered as the roots are."""
        config, repeats = self.config, 2 + self.config.negatives_per_event
        if not config.dropout:
            return None
        shape = (repeats, config.num_heads, config.num_neighbors)
        drawn = keep_mask(
            config.seed,
            sweep,
            pass_index,
            first,
            last - first,
            draws_per_event=math.prod(shape),
            rate=config.dropout,
            replica=self._replica,
        )
        by_role = drawn.reshape(last - first, *shape).swapaxes(0, 1)
        return by_role.reshape(-1, *shape[1:])
