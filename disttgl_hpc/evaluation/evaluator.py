"""Evaluation: continue the stream from a copy of the memory and rank every held-out event.

``MemoryWalk`` updates a memory along the stream with a trained model; queries to trained runs use it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import TrainingError
from disttgl_hpc.evaluation.candidates import Candidates, Part
from disttgl_hpc.evaluation.metrics import ClassCounts, NewNodes, PartMetrics, ranked
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import Batching, slice_bounds
from disttgl_hpc.log import progress
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.model.inputs import NodeInputs
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.sampling.class_features import class_facts
from disttgl_hpc.sampling.mail import Groups, mail_for, partners_between
from disttgl_hpc.sampling.mfg import NodeIndex
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors
from disttgl_hpc.sampling.pair_features import pair_features

NODES_AT_ONCE = 256
Rows = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Distinct nodes (n,) and their rows (n, 2·dim_memory), in several pieces."""


class MemoryWalk:
    """Reads and updates a memory (N, 2·dim_memory) along a stream, from its first event on."""

    def __init__(
        self, stream: EventStream, config: TrainConfig, batching: Batching, inputs: InputBuilder
    ) -> None:
        self._stream, self._config, self._batching, self._inputs = stream, config, batching, inputs
        self.index = NodeIndex(stream.num_nodes)

    def nodes(self, state: NDArray[np.float32], nodes: NDArray[np.int64], first: int) -> NodeInputs:
        """Inputs of distinct ``nodes`` with the mail pending before event ``first``.

        ``state`` is the memory after the :meth:`updates` of all earlier batches, the last of which ends at
        ``first``.
        """
        mail = mail_for(self._config, self._stream.tcsr, nodes, (0, first), self._batching)
        return self._inputs.nodes(nodes, mail, state[nodes])

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
        """Memory rows written by events [first, last), a batch or the beginning of one.

        parts, index: number of processes that share the work, and which of their shares to compute.
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


def write(state: NDArray[np.float32], updates: Rows) -> None:
    """Write the rows returned by :meth:`MemoryWalk.updates`."""
    for nodes, rows in updates:
        state[nodes] = rows


def units(first: int, last: int, size: int, *, parts: int = 1, index: int = 0) -> list[tuple[int, int]]:
    """Ranges of at most ``size`` that cover [first, last): the share of one of ``parts`` members."""
    ranges = [(start, min(start + size, last)) for start in range(first, last, size)]
    return ranges[slice(*slice_bounds(0, len(ranges), parts, index))]


# Matrix products round differently for different numbers of rows. With units of fixed size, scores do not depend
# on the number of members. The nodes of a unit are updated once for all its events: an event in a unit of 100
# costs two thirds of one in a unit of 40, and a batch of 600 still has 6 units to share.
EVENTS_AT_ONCE = 100


@dataclass(frozen=True)
class Team:
    """The processes that share an evaluation: all trainers of a grid, or any ranks with a finished run.

    All ``size`` members score parts of every batch. The ``node_size`` members of a node share one memory:
    each writes a part of it, with ``fence`` between reading and writing. ``gather`` collects one object per
    member, in order, on the first (None elsewhere); ``share`` broadcasts the first member's object.
    """

    index: int = 0
    size: int = 1
    node_index: int = 0
    node_size: int = 1
    fence: Callable[[], None] = lambda: None
    gather: Callable[[Any], list[Any] | None] = lambda own: [own]
    share: Callable[[Any], Any] = lambda own: own


@dataclass(frozen=True)
class Scored:
    """Logits of the events of a unit: links (n, 1 + negatives), classes (n, C); width 0 if not predicted."""

    first: int
    links: NDArray[np.float32]
    classes: NDArray[np.float32]


@dataclass(frozen=True)
class Share:
    """What one member found in a part: scores of links by unit, and counts of classes; empty if not predicted.

    links: (first event, logits (n, 1 + negatives)) of each unit.
    """

    links: list[tuple[int, NDArray[np.float32]]]
    classes: ClassCounts


class Evaluator:
    """Scores held-out events with a model and the memory at the end of a training sweep."""

    def __init__(
        self, stream: EventStream, config: TrainConfig, batching: Batching, inputs: InputBuilder, team: Team
    ) -> None:
        self.stream, self.config, self.team = stream, config, team
        self._batching, self.inputs = batching, inputs
        self._walk = MemoryWalk(stream, config, batching, inputs)
        self.candidates = Candidates(stream, config)

    def evaluate(self, model: Tgn, state: NDArray[np.float32], part: Part) -> PartMetrics:
        """Rank the events of ``part`` and predict their classes; collective over the team, same result on all.

        state: (N, 2·dim_memory), the memory after all events before ``part.first``; updated in place to the
        memory after the part's last event. Raises TrainingError if a score is NaN.
        """
        gathered = self.team.gather(self._scores(model, state, part))
        metrics: PartMetrics | None = None
        if gathered is not None:
            metrics = self._metrics(gathered, part)
        shared: PartMetrics = self.team.share(metrics)
        return shared

    def _metrics(self, shares: list[Share], part: Part) -> PartMetrics:
        """Metrics of ``part`` from the shares of all members."""
        metrics, bounds = PartMetrics(), (part.first, part.scored_last)
        try:
            if self.config.predicts_links:
                units_in_order = sorted((unit for share in shares for unit in share.links), key=itemgetter(0))
                links = np.concatenate([scores for _, scores in units_in_order])
                metrics = ranked(links, NewNodes.of(self.stream, *bounds), self.candidates.counted(*bounds))
            if self.stream.targets is not None:
                counts = ClassCounts(self.stream.targets.num_classes)
                for share in shares:
                    counts.join(share.classes)
                metrics = replace(metrics, classes=counts.metrics())
        except ValueError as error:
            raise TrainingError(f"{part.name}: {error}") from error
        return metrics

    @torch.no_grad()
    def _scores(self, model: Tgn, state: NDArray[np.float32], part: Part) -> Share:
        """Score this member's share of ``part``."""
        team, targets = self.team, self.stream.targets
        share = Share([], ClassCounts(0 if targets is None else targets.num_classes))
        with progress(part.last - part.first, part.name, shown=team.index == 0) as bar:
            for first, last in self._batching.evaluation_bounds(part.first, part.last):
                scored_last = min(last, part.scored_last)
                own_units = units(first, scored_last, EVENTS_AT_ONCE, parts=team.size, index=team.index)
                for unit in own_units:
                    scored = self.score(model, state, first, *unit)
                    if self.config.predicts_links:
                        share.links.append((scored.first, scored.links))
                    if targets is not None:
                        share.classes.add(targets.values[slice(*unit)], scored.classes)
                self.advance(model, state, first, last)
                bar.advance(last - first)
        return share

    def score(
        self, model: Tgn, state: NDArray[np.float32], batch_first: int, first: int, last: int
    ) -> Scored:
        """Logits of events [first, last) in the batch that begins at ``batch_first``."""
        stream, is_ranked = self.stream, self.config.predicts_links
        candidates = self.candidates.of(first, last) if is_ranked else stream.dst[first:last, None]
        roots = np.concatenate([stream.src[first:last, None], candidates], axis=1, dtype=np.int64)
        num_events, repeats = roots.shape
        bounds, time = event_bounds(stream.time, first, last), stream.time[first:last]
        root_bounds, root_time = np.repeat(bounds, repeats), np.repeat(time, repeats)
        mfg = self._walk.index.mfg(
            recent_neighbors(stream.tcsr, roots.ravel(), root_time, root_bounds, self.config.num_neighbors)
        )
        pairs = None
        if is_ranked and self.config.pair_features:
            pairs = pair_features(stream.tcsr, roots[:, 0], roots[:, 1:], bounds)
        nodes = self._walk.nodes(state, mfg.nodes, batch_first)
        h = model.represent(model.update_memory(nodes), nodes)
        facts = None if stream.targets is None else class_facts(stream, stream.targets, first, last)
        graph = self.inputs.graph(mfg, pairs, facts=facts)
        embeddings = model.embed(h, graph).view(num_events, repeats, -1)
        links = classes = np.empty((num_events, 0), np.float32)
        if is_ranked:
            links = model.scores(embeddings[:, :1], embeddings[:, 1:], graph.pairs).cpu().numpy()
        if stream.targets is not None:
            classes = model.classify(embeddings[:, 0], embeddings[:, 1], graph.facts).cpu().numpy()
        return Scored(first, links, classes)

    def advance(self, model: Tgn, state: NDArray[np.float32], first: int, last: int) -> None:
        """Update the memory by events [first, last), one evaluation batch."""
        team = self.team
        updates = self._walk.updates(model, state, first, last, parts=team.node_size, index=team.node_index)
        team.fence()
        write(state, updates)
        team.fence()
