"""Evaluation: continue the stream from a copy of the memory, rank every held-out event among fixed negatives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.batch import NodeIndex, last_events
from disttgl_hpc.core.draws import Purpose
from disttgl_hpc.core.heuristics import best_half_life, heuristic_metrics
from disttgl_hpc.core.mail import Batching, pending_mail
from disttgl_hpc.core.metrics import LinkMetrics, link_metrics
from disttgl_hpc.core.negatives import NegativeSampler, evaluation_candidates
from disttgl_hpc.core.sampler import event_bounds, recent_neighbors
from disttgl_hpc.core.schedule import GridShape, slice_bounds
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.errors import StoreError
from disttgl_hpc.log import progress
from disttgl_hpc.nn.inputs import NodeInputs
from disttgl_hpc.nn.model import Tgn
from disttgl_hpc.runs.batches import batching_of
from disttgl_hpc.runs.checkpoints import load_weights
from disttgl_hpc.runs.directory import RunDirectory, saved_config
from disttgl_hpc.runs.inputs import InputBuilder, build_model
from disttgl_hpc.store.events import EventStore

# Matrix products round differently for other numbers of rows. Units of fixed size, which members of a team take
# whole, make every score the same however many share the work.
EVENTS_AT_ONCE = 40
NODES_AT_ONCE = 256


@dataclass(frozen=True)
class Part:
    """A held-out part of the stream: events [first, last), of which [first, scored_last) are ranked."""

    name: str
    first: int
    last: int
    scored_last: int


def held_out_parts(stream: EventStream, config: TrainConfig) -> tuple[Part, Part]:
    """Validation and test; ``config.evaluation_events`` limits how many events of each are ranked."""
    bounds = (stream.split.train_end, stream.split.validation_end, stream.num_events)
    limit = config.evaluation_events or stream.num_events
    validation, test = (
        Part(name, first, last, min(last, first + limit))
        for name, first, last in zip(("validation", "test"), bounds[:-1], bounds[1:], strict=True)
    )
    return validation, test


class Candidates:
    """The destinations each held-out event is ranked among: its own, then negatives fixed by the seed."""

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        self.stream, self._count = stream, config.evaluation_negatives
        self._negatives = NegativeSampler(
            stream, evaluation_candidates(stream), config.evaluation_seed, Purpose.EVALUATION_NEGATIVES
        )

    def of(self, first: int, last: int) -> NDArray[np.int64]:
        """Candidates of events [first, last): (n, 1 + evaluation_negatives), the true destination first."""
        negatives = self._negatives.draw(first, last, self._count)
        return np.concatenate([self.stream.dst[first:last, None], negatives], axis=1, dtype=np.int64)


@dataclass(frozen=True)
class Team:
    """The trainers that share an evaluation; one process alone by default.

    All ``size`` trainers score parts of every batch. The ``node_size`` trainers of a node share one memory: each
    writes a part of it, and they meet at ``fence`` between reading it and writing it. ``gather`` collects one
    object a trainer, in order of ``index``, on all of them.
    """

    index: int = 0
    size: int = 1
    node_index: int = 0
    node_size: int = 1
    fence: Callable[[], None] = lambda: None
    gather: Callable[[Any], list[Any]] = lambda own: [own]


class Evaluator:
    """Scores held-out events with a model and a memory that starts where a training sweep ended."""

    def __init__(
        self, stream: EventStream, config: TrainConfig, batching: Batching, team: Team | None = None
    ) -> None:
        self.stream, self.config, self._batching = stream, config, batching
        self.team = team or Team()
        self._candidates = Candidates(stream, config)
        self._index = NodeIndex(stream.num_nodes)
        self._inputs = InputBuilder(stream, torch.device(config.device))

    @torch.no_grad()
    def evaluate(self, model: Tgn, state: NDArray[np.float32], part: Part) -> LinkMetrics:
        """Rank the events of ``part``; collective over the team, the same result on all of it.

        ``state`` (N, 2·dim_memory) is the memory after all events before ``part.first``. It is modified in place
        and is the memory after the part's last event on return.
        """
        team, own = self.team, []
        with progress(part.last - part.first, part.name, shown=team.index == 0) as bar:
            for first, last in self._batching.evaluation_bounds(part.first, part.last):
                scored_last = min(last, part.scored_last)
                units = _units(first, scored_last, EVENTS_AT_ONCE, parts=team.size, index=team.index)
                own += [(unit[0], self._score(model, state, first, *unit)) for unit in units]
                self._advance(model, state, first, last)
                bar.advance(last - first)
        scored = sorted((piece for member in team.gather(own) for piece in member), key=itemgetter(0))
        scores = np.concatenate([scores for _, scores in scored])
        return link_metrics(scores[:, 0], scores[:, 1:])

    def _score(
        self, model: Tgn, state: NDArray[np.float32], batch_first: int, first: int, last: int
    ) -> NDArray[np.float32]:
        """Logits of events [first, last) of the batch that begins at ``batch_first``: (n, 1 + negatives)."""
        stream = self.stream
        roots = np.concatenate(
            [stream.src[first:last, None].astype(np.int64), self._candidates.of(first, last)], axis=1
        )
        num_events, repeats = roots.shape
        bounds = np.repeat(event_bounds(stream.time, first, last), repeats)
        root_time = np.repeat(stream.time[first:last], repeats)
        mfg = self._index.mfg(
            recent_neighbors(stream.tcsr, roots.ravel(), root_time, bounds, self.config.num_neighbors)
        )
        nodes = self._nodes(state, mfg.nodes, batch_first)
        h = model.represent(model.update_memory(nodes), nodes)
        embeddings = model.embed(h, self._inputs.graph(mfg)).view(num_events, repeats, -1)
        logits = model.scores(embeddings[:, :1], embeddings[:, 1:])
        return np.asarray(logits.cpu().numpy())

    def _advance(self, model: Tgn, state: NDArray[np.float32], first: int, last: int) -> None:
        """Write what events [first, last), one evaluation batch, leave in the memory."""
        writes, team = last_events(self.stream.src[first:last], self.stream.dst[first:last]), self.team
        updates = []
        units = _units(0, len(writes.nodes), NODES_AT_ONCE, parts=team.node_size, index=team.node_index)
        for bounds in units:
            nodes, partners = writes.nodes[slice(*bounds)], writes.partners[slice(*bounds)]
            involved = self._index.distinct(np.concatenate([nodes, partners]))
            memory = model.update_memory(self._nodes(state, involved, first)).cpu().numpy()
            own, peer = (memory[self._index.rows(involved, ids)] for ids in (nodes, partners))
            updates.append((nodes, np.concatenate([own, peer], axis=1)))
        team.fence()
        for nodes, rows in updates:
            state[nodes] = rows
        team.fence()

    def _nodes(self, state: NDArray[np.float32], nodes: NDArray[np.int64], batch_first: int) -> NodeInputs:
        """Memory of distinct ``nodes`` with the mail that is pending when the batch at ``batch_first`` begins."""
        mail = pending_mail(self.stream.tcsr, nodes, batch_first, 0, self._batching)
        return self._inputs.nodes(nodes, mail, state[nodes])


def _units(first: int, last: int, size: int, *, parts: int, index: int) -> list[tuple[int, int]]:
    """Ranges of at most ``size`` that cover [first, last): those that fall to one of ``parts`` members."""
    units = [(start, min(start + size, last)) for start in range(first, last, size)]
    return units[slice(*slice_bounds(0, len(units), parts, index))]


def final_results(
    run: RunDirectory, evaluator: Evaluator, model: Tgn, state: NDArray[np.float32]
) -> dict[str, Any]:
    """Validation and test with a run's best weights, which ``model`` takes on, and the memory they left.

    Collective over the evaluator's team. ``state`` (N, 2·dim_memory) is where the memory is loaded, shared by the
    trainers of a node. The heuristics beside the model are added by the team's first member only.
    """
    team, stream, config = evaluator.team, evaluator.stream, evaluator.config
    parts = held_out_parts(stream, config)
    checkpoint = load_weights(run.best_checkpoint, model)
    team.fence()
    if team.node_index == 0:
        state[:] = checkpoint.arrays["memory"]
    team.fence()
    results: dict[str, Any] = {"best_sweep": checkpoint.attributes["sweep"]}
    for part in parts:
        results[part.name] = evaluator.evaluate(model, state, part).as_dict()
    if team.index == 0:
        results["heuristics"] = _heuristics(stream, config, *parts)
        results["evaluation_negatives"] = config.evaluation_negatives
    return results


def _heuristics(
    stream: EventStream, config: TrainConfig, validation: Part, test: Part
) -> dict[str, dict[str, float | int]]:
    """Metrics of the heuristics on test, on the model's candidates; validation sets PopTrack's half-life."""
    candidates = Candidates(stream, config)
    ranges = [(part.first, part.scored_last) for part in (validation, test)]
    tuning, asked = (candidates.of(*bounds) for bounds in ranges)
    half_life = best_half_life(stream, *ranges[0], tuning)
    found = heuristic_metrics(stream, *ranges[1], asked, half_life)
    return {name: metrics.as_dict() for name, metrics in found.items()}


def evaluate_run(run: RunDirectory, events: Path | None, world: Any) -> dict[str, Any]:
    """Repeat the final evaluation of a run from its files, shared among all ranks of ``world`` (collective).

    events: the event store, if it is no longer where the run found it. Raises StoreError if a file is missing or
    is not the one the run was made with.
    """
    settings = run.read_config()
    config = saved_config(settings)
    torch.set_num_threads(config.threads)
    store = EventStore.open(events or settings["events"])
    if store.checksum != settings["checksum"]:
        raise StoreError(
            f"{store.path}: the run was trained on events of checksum {settings['checksum'][:16]}…, these have "
            f"{store.checksum[:16]}…: give the original store with --events"
        )
    stream = store.stream
    batching = batching_of(stream, config, GridShape.parse(config.grid))
    team = Team(index=world.rank, size=world.size, gather=world.allgather)
    model = build_model(stream, config).to(config.device)
    state = np.empty((stream.num_nodes, 2 * config.dim_memory), np.float32)
    return final_results(run, Evaluator(stream, config, batching, team), model, state)
