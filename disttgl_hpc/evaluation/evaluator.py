"""Evaluation: continue the stream from a copy of the memory and rank every held-out event.

``MemoryWalk`` updates a memory along the stream with a trained model; queries to trained runs use it as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
NUMBERS_AT_ONCE = 2**24  # of scores in a piece that is gathered: 64 MiB


@dataclass(frozen=True)
class Team:
    """The processes that share an evaluation: all trainers of a grid, or any ranks with a finished run.

    All ``size`` members score parts of every batch. The ``node_size`` members of a node share one memory:
    each writes a part of it, with ``fence`` between reading and writing. ``gather`` joins flat arrays of the
    members, in their order, on the first (None elsewhere); ``collect`` lists their counts there. ``decide``
    returns what a function returns on the first member, on all members; its error is raised on all of them. A
    text says what it does.
    """

    index: int = 0
    size: int = 1
    node_index: int = 0
    node_size: int = 1
    fence: Callable[[], None] = lambda: None
    gather: Callable[[NDArray[np.float32]], NDArray[np.float32] | None] = lambda own: own
    collect: Callable[[ClassCounts], list[ClassCounts] | None] = lambda own: [own]
    decide: Callable[[Callable[[], Any], str], Any] = lambda decide, _what: decide()


@dataclass(frozen=True)
class Scored:
    """Logits of the events of a unit: links (n, 1 + negatives), classes (n, C); width 0 if not predicted."""

    first: int
    links: NDArray[np.float32]
    classes: NDArray[np.float32]


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
        memory after the part's last event. Raises TrainingError if a score is NaN, PeerError on the others.
        """
        links, own = self._scores(model, state, part)
        counts = self.team.collect(own) or []
        metrics: PartMetrics = self.team.decide(
            lambda: self._metrics(links, counts, part), "compute the metrics"
        )
        return metrics

    def _metrics(self, links: NDArray[np.float32], counts: list[ClassCounts], part: Part) -> PartMetrics:
        """Metrics of ``part`` from the scores and counts of all members."""
        metrics, bounds = PartMetrics(), (part.first, part.scored_last)
        try:
            if self.config.predicts_links:
                metrics = ranked(links, NewNodes.of(self.stream, *bounds), self.candidates.counted(*bounds))
            if self.stream.targets is not None:
                total = ClassCounts(self.stream.targets.num_classes)
                for share in counts:
                    total.join(share)
                metrics = replace(metrics, classes=total.metrics())
        except ValueError as error:
            raise TrainingError(f"{part.name}: {error}") from error
        return metrics

    def _num_links(self, part: Part) -> int:
        """Scores of links of an event of ``part``."""
        return self.candidates.of(part.first, part.first + 1).shape[1] if self.config.predicts_links else 0

    @torch.no_grad()
    def _scores(
        self, model: Tgn, state: NDArray[np.float32], part: Part
    ) -> tuple[NDArray[np.float32], ClassCounts]:
        """Score this member's share of ``part``; returns scores of links and counts of classes.

        Scores are those of all members (n, 1 + negatives) on the first one, (0, …) on the others; they are
        gathered in pieces, so that members hold no more than one beside the result. Counts are this member's.
        """
        team, targets, width = self.team, self.stream.targets, self._num_links(part)
        counts = ClassCounts(0 if targets is None else targets.num_classes)
        links = np.empty((part.scored_last - part.first if team.index == 0 else 0, width), np.float32)
        batches, own = list[tuple[int, int]](), list[NDArray[np.float32]]()
        with progress(part.last - part.first, part.name, shown=team.index == 0) as bar:
            for first, last in self._batching.evaluation_bounds(part.first, part.last):
                batches.append((first, min(last, part.scored_last)))
                for unit in self._units(batches[-1], team.index):
                    scored = self.score(model, state, first, *unit)
                    own.append(scored.links.ravel())
                    if targets is not None:
                        counts.add(targets.values[slice(*unit)], scored.classes)
                self.advance(model, state, first, last)
                bar.advance(last - first)
                num_events = batches[-1][1] - batches[0][0]
                if width and (last == part.last or num_events * width >= NUMBERS_AT_ONCE):
                    gathered = team.gather(np.concatenate([np.empty(0, np.float32), *own]))
                    if gathered is not None:
                        links[self._events(batches) - part.first] = gathered.reshape(-1, width)
                    own, batches = [], []
        return links, counts

    def _units(self, batch: tuple[int, int], member: int) -> list[tuple[int, int]]:
        """Events that a member scores at once, of those [first, last) of a batch."""
        return units(*batch, EVENTS_AT_ONCE, parts=self.team.size, index=member)

    def _events(self, batches: list[tuple[int, int]]) -> NDArray[np.int64]:
        """Events of batches in the order in which their scores are gathered: member by member."""
        shares = [
            np.arange(*unit, dtype=np.int64)
            for member in range(self.team.size)
            for batch in batches
            for unit in self._units(batch, member)
        ]
        return np.concatenate([np.empty(0, np.int64), *shares])

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
