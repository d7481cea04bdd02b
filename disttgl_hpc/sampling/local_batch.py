"""Local batches: from an assignment of the schedule to arrays of roots, neighbours, mail and dropout masks.

``prefetched`` prepares them in advance, in a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.draws import Purpose, keep_mask, node_mask
from disttgl_hpc.errors import DeadlineError, StoreError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import (
    Assignment,
    Batching,
    Coordinates,
    GridShape,
    batch_bounds,
    negative_set,
    pass_number,
    slice_bounds,
)
from disttgl_hpc.sampling.class_features import class_facts
from disttgl_hpc.sampling.graph_records import RecordFormat, check_records, join_graph
from disttgl_hpc.sampling.mail import Groups, PendingMail, graph_with_partners, mail_for
from disttgl_hpc.sampling.mfg import LastEvents, Mfg, NodeIndex
from disttgl_hpc.sampling.negatives import NegativeSampler, Strategy, training_candidates
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors
from disttgl_hpc.sampling.pair_features import pair_features
from disttgl_hpc.store.batch_store import BatchKey, BatchStore
from disttgl_hpc.store.event_store import EventStore

SAMPLING_VERSION = 2
"""Version of what :class:`LiveGraphs` samples; increased with every change, so that older batch stores are refused
and runs that began with another version cannot be resumed."""


@dataclass(frozen=True)
class Slice:
    """A trainer's part of a global batch: events [first, last) of slice ``minibatch`` of ``batch``."""

    batch: int
    minibatch: int
    first: int
    last: int


@dataclass(frozen=True)
class Pass:
    """One pass over a local batch with one negative set.

    mfg: roots ordered src ‖ dst ‖ negatives. mail: of ``mfg.nodes``. positions: index of ``mfg.nodes`` in the batch's
    nodes. keep: (R, num_heads, K) dropout mask or None. pairs: (1 + m, b, DIM_PAIR), pair features of each source
    with its destination and its m negatives, or None. keep_static: (U,), mask of the nodes that keep their static
    memory, or None for all. facts: (b, dim_facts), class features of the events, or None.
    """

    mfg: Mfg
    mail: PendingMail
    positions: slice | NDArray[np.int64]
    keep: NDArray[np.bool_] | None
    pairs: NDArray[np.float32] | None
    keep_static: NDArray[np.bool_] | None
    facts: NDArray[np.float32] | None


@dataclass(frozen=True)
class LocalBatch:
    """Events [first, last) of one trainer with everything its j passes need except the node memory.

    nodes: (n,) int64, all nodes of all passes, read from the memory at once. writes: the nodes to write. peers:
    groups of partners whose mean is the peer of each, rows of the first pass's nodes; None: the partner of its last
    event.
    """

    first: int
    last: int
    nodes: NDArray[np.int64]
    passes: tuple[Pass, ...]
    writes: LastEvents
    peers: Groups | None

    @property
    def num_events(self) -> int:
        """Number of events, at most the configured local batch."""
        return self.last - self.first


class GraphSource(Protocol):
    """Source of message flow graphs; all sources return the same graph for the same request."""

    def graph(self, part: Slice, negative_set: int) -> Mfg:
        """Graph of the events of ``part`` with one negative set; its nodes begin with those of src ‖ dst."""


class LiveGraphs:
    """Samples graphs on request; must not be used by two threads at a time."""

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        self._stream, self._config = stream, config
        self._index = NodeIndex(stream.num_nodes)
        self._negatives = NegativeSampler(
            stream,
            training_candidates(stream),
            config.seed,
            Purpose.TRAINING_NEGATIVES,
            Strategy(config.negative_strategy),
        )

    def graph(self, part: Slice, negative_set: int) -> Mfg:
        """Draw the negatives, sample all roots' neighbours, number the nodes. Raises ConfigError (see draw)."""
        stream, config, first, last = self._stream, self._config, part.first, part.last
        roots = [stream.src[first:last], stream.dst[first:last]]
        if config.predicts_links:
            drawn = self._negatives.draw(first, last, config.negatives_per_event, negative_set=negative_set)
            roots.append(drawn.T.ravel())
        repeats = 2 + config.drawn_negatives
        bounds = np.tile(event_bounds(stream.time, first, last), repeats)
        root_time = np.tile(stream.time[first:last], repeats)
        hood = recent_neighbors(stream.tcsr, np.concatenate(roots), root_time, bounds, config.num_neighbors)
        return self._index.mfg(hood, 2 * (last - first))


def batch_key(store: EventStore, config: TrainConfig, minibatch: int) -> BatchKey:
    """Key that a batch store must have for a run on ``store`` with grids of i = ``minibatch``."""
    return BatchKey(
        events=store.checksum,
        train_end=store.stream.split.train_end,
        local_batch=config.local_batch,
        minibatch=minibatch,
        num_neighbors=config.num_neighbors,
        negatives_per_event=config.negatives_per_event,
        negative_sets=config.negative_sets,
        negative_strategy=config.negative_strategy,
        seed=config.seed,
        sampling_version=SAMPLING_VERSION,
    )


def record_format(stream: EventStream, key: BatchKey) -> RecordFormat:
    """Format of the records of a stream's slices."""
    return RecordFormat.of(
        num_nodes=stream.num_nodes,
        num_events=stream.num_events,
        num_roots=key.local_batch * (2 + key.negatives_per_event),
        num_neighbors=key.num_neighbors,
    )


class StoredGraphs:
    """Reads graphs from a batch store; all processes of a node share it in the page cache."""

    def __init__(self, stream: EventStream, store: BatchStore) -> None:
        self._store, self._stream, self._format = store, stream, record_format(stream, store.key)

    @classmethod
    def open(cls, path: Path, store: EventStore, config: TrainConfig, minibatch: int) -> StoredGraphs:
        """Graphs of the batch store ``path``. Raises StoreError unless it was sampled for these settings."""
        wanted, batches = batch_key(store, config, minibatch), BatchStore.open(path)
        batches.check_key(wanted)
        return cls(store.stream, batches)

    def graph(self, part: Slice, negative_set: int) -> Mfg:
        """Join the records of the positives and of the negative set. Raises StoreError if one is damaged."""
        key, num_events = self._store.key, part.last - part.first
        sizes = (0, 2 * num_events), (1 + negative_set, key.negatives_per_event * num_events)
        try:
            positives, negatives = (
                self._format.unpack(self._store.record(part.batch, part.minibatch, index), num_roots)
                for index, num_roots in sizes
            )
            records = positives, negatives
            check_records(records, self._stream.num_nodes, self._stream.num_events, key.num_neighbors)
        except ValueError as error:
            raise StoreError(
                f"{self._store.path}: global batch {part.batch}, slice {part.minibatch}: {error}: make the store "
                "again with disttgl sample --force"
            ) from None
        return join_graph(records, key.num_neighbors)


class BatchSampler:
    """Makes local batches of a stream; the result depends only on the assignment.

    Graphs come from ``graphs``. Mail and dropout are always computed here: mail depends on the global batch and the
    beginning of the sweep, dropout on the number of the pass.
    """

    def __init__(
        self,
        stream: EventStream,
        config: TrainConfig,
        shape: GridShape,
        batching: Batching,
        coordinates: Coordinates,
        *,
        graphs: GraphSource | None = None,
    ) -> None:
        self.stream, self.config, self.shape, self.batching = stream, config, shape, batching
        self._replica = coordinates.memory
        self._index = NodeIndex(stream.num_nodes)
        self._graphs = graphs or LiveGraphs(stream, config)

    def sample(self, work: Assignment) -> LocalBatch:
        """Local batch of ``work``, an assignment of this trainer, with all its passes."""
        stream, batching, shape = self.stream, self.batching, self.shape
        batch_first, batch_last = batch_bounds(work.batch, batching.global_batch, stream.split.train_end)
        first, last = slice_bounds(batch_first, batch_last, shape.minibatch, work.minibatch)
        part = Slice(work.batch, work.minibatch, first, last)
        numbers = [pass_number(work.sweep, self._replica, index, shape) for index in range(shape.epoch)]
        graphs = [
            self._graphs.graph(part, negative_set(number, self.config.negative_sets)) for number in numbers
        ]
        writes, peers = self._index.last_events(stream.src[first:last], stream.dst[first:last]), None
        if self.config.comb == "mean":
            graphs[0], peers = graph_with_partners(
                self._index, graphs[0], stream.tcsr, writes, (batch_first, batch_last)
            )
        nodes, positions = self._all_nodes(graphs)
        past = work.sweep_first_batch * batching.global_batch, batch_first
        facts = None if stream.targets is None else class_facts(stream, stream.targets, first, last)
        passes = tuple(
            Pass(
                mfg,
                mail_for(self.config, stream.tcsr, mfg.nodes, past, batching),
                rows,
                self._keep(first, last, number),
                self._pairs(first, last, mfg),
                self._keep_static(mfg.nodes, work.batch, number),
                facts,
            )
            for mfg, rows, number in zip(graphs, positions, numbers, strict=True)
        )
        return LocalBatch(first, last, nodes, passes, writes, peers)

    def _all_nodes(self, graphs: list[Mfg]) -> tuple[NDArray[np.int64], list[slice | NDArray[np.int64]]]:
        """Distinct nodes of all graphs, those of the first graph first, and the index of each graph's nodes in them."""
        sizes = [len(mfg.nodes) for mfg in graphs]
        if len(graphs) == 1:
            return graphs[0].nodes, [slice(None)]
        nodes, rows = self._index.number(np.concatenate([mfg.nodes for mfg in graphs]))
        others = np.split(rows[sizes[0] :], np.cumsum(sizes[1:-1]))
        return nodes, [slice(sizes[0]), *others]

    def _pairs(self, first: int, last: int, mfg: Mfg) -> NDArray[np.float32] | None:
        """Features of each source with its candidates, the roots of ``mfg``."""
        if not (self.config.pair_features and self.config.predicts_links):
            return None
        stream = self.stream
        by_role = mfg.nodes[mfg.roots].reshape(2 + self.config.drawn_negatives, last - first)
        features = pair_features(
            stream.tcsr,
            by_role[0],
            by_role[1:].T,
            event_bounds(stream.time, first, last),
        )
        return np.ascontiguousarray(features.swapaxes(0, 1))

    def _keep(self, first: int, last: int, number: int) -> NDArray[np.bool_] | None:
        """Dropout mask (R, num_heads, K), drawn per event, in the order of the roots."""
        config, repeats = self.config, 2 + self.config.drawn_negatives
        if not config.dropout:
            return None
        shape = (repeats, config.num_heads, config.num_neighbors)
        drawn = keep_mask(
            config.seed, number, first, last - first, draws_per_event=math.prod(shape), rate=config.dropout
        )
        by_role = drawn.reshape(last - first, *shape).swapaxes(0, 1)
        return by_role.reshape(-1, *shape[1:])

    def _keep_static(self, nodes: NDArray[np.int64], batch: int, number: int) -> NDArray[np.bool_] | None:
        """Mask of the nodes that keep their static memory; the others look like unknown nodes."""
        config = self.config
        if not (config.static and config.static_dropout):
            return None
        return node_mask(config.seed, number, batch, nodes, rate=config.static_dropout)


Item = TypeVar("Item")
_END = object()
_LEAVES_IN_S = 5.0


def prefetched(items: Iterable[Item], depth: int, timeout_s: float, what: str) -> Iterator[Item]:
    """Yield the items; a thread prepares up to ``depth`` of them while the caller works on earlier ones.

    Items and order do not depend on ``depth``; with 0 each item is made on request, without a thread. An
    error in making an item is raised when it is the item's turn. Raises DeadlineError, naming ``what``, if an
    item takes longer than ``timeout_s``; the process can then exit although the thread is stuck. Closing the
    iterator ends the thread after the current item.
    """
    source = iter(items)
    if depth == 0:
        yield from source
        return
    made: SimpleQueue[tuple[object, Exception | None]] = SimpleQueue()
    wanted, is_closed = Semaphore(depth), Event()

    def make() -> None:
        item: object = None
        while item is not _END:
            wanted.acquire()
            if is_closed.is_set():
                return
            try:
                item = next(source, _END)
            except Exception as error:
                made.put((None, error))
                return
            made.put((item, None))

    # A daemon thread, so that the interpreter does not wait for it at exit.
    maker = Thread(target=make, name="prefetch", daemon=True)
    maker.start()
    is_stuck = False
    try:
        while True:
            try:
                item, error = made.get(timeout=timeout_s)
            except Empty:
                is_stuck = True
                raise DeadlineError(
                    f"waited {timeout_s:g} s for {what}: the storage is stuck or very slow; check it, or allow "
                    "more time with --timeout-s"
                ) from None
            if error is not None:
                raise error
            if item is _END:
                return
            wanted.release()
            yield cast(Item, item)
    finally:
        is_closed.set()
        wanted.release()
        if not is_stuck:
            maker.join(_LEAVES_IN_S)
