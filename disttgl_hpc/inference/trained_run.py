"""A trained run put to use: its best weights, and its node memory at any moment of a stream.

The memory at a moment has processed all events strictly before it, in the batches of the run: training
batches, then evaluation batches, the last of which ends at the moment, full or not. Before the end of
training it is computed from zero by the best weights; afterwards it continues from the memory of the best
sweep, as in evaluation. It depends only on the run and on events before the moment.

``open_trained`` loads model and memory from the files of a run, ``update`` stores the memory after new
events, and ``NodeIds`` maps the users' ids to nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError, InputError, StoreError
from disttgl_hpc.evaluation.evaluator import MemoryWalk, write
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import Batching, GridShape
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.sampling.mail import batch_first_of
from disttgl_hpc.store.checkpoint_files import Manifest, read_manifest, verify_parts
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import KeptMemory, MemoryOrigin, StaticStore, write_memory
from disttgl_hpc.training.checkpoints import check_attributes, load_memory, load_static, load_weights
from disttgl_hpc.training.resume import Prefix, find_prefix, prefix_of
from disttgl_hpc.training.run_directory import RunDirectory, saved_config
from disttgl_hpc.training.run_events import check_same_static_memory, static_settings, with_task

log = get_logger(__name__)
Ids = NDArray[np.int64] | NDArray[np.str_]
_SHOWN = 5


class NodeIds:
    """The user's ids of a stream's nodes; sources and destinations of bipartite streams have ids of their own."""

    def __init__(self, ids: Ids, num_src: int) -> None:
        self.all, self.num_src = ids, num_src
        spaces = {"sources": (0, num_src), "destinations": (num_src, len(ids))}
        self._spaces = spaces if num_src else {"nodes": (0, len(ids))}
        self._orders = {
            name: np.argsort(ids[slice(*ends)], kind="stable") for name, ends in self._spaces.items()
        }

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and destinations are two kinds."""
        return self.num_src > 0

    @property
    def destinations(self) -> tuple[int, int]:
        """First and last of the nodes that can be destinations."""
        return self.num_src, len(self.all)

    def kinds(self, nodes: NDArray[np.int64]) -> NDArray[np.str_]:
        """The word source or destination for each of ``nodes`` (n,) of a bipartite stream."""
        return np.where(nodes < self.num_src, "source", "destination")

    def sources(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Number of the source with each id (n,), −1 where there is none."""
        return self._numbers(values, "sources" if self.is_bipartite else "nodes")

    def targets(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Number of the destination with each id (n,), −1 where there is none."""
        return self._numbers(values, "destinations" if self.is_bipartite else "nodes")

    def nodes(self, values: Sequence[Any] | NDArray[Any] | None, of: str | None = None) -> NDArray[np.int64]:
        """Numbers of all nodes with these ids, in their order; None: of all nodes.

        of: "sources" or "destinations" of a bipartite stream only; else an id that names one of each gives
        both. Raises InputError naming ids that there are not, ConfigError for ``of`` in a stream of one node
        set.
        """
        if of is not None and of not in self._spaces:
            raise ConfigError(f"the stream has one set of nodes, {of} cannot be chosen: leave that out")
        spaces = list(self._spaces) if of is None else [of]
        if values is None:
            return np.concatenate([np.arange(*self._spaces[name]) for name in spaces])
        found = np.stack([self._numbers(values, name) for name in spaces], axis=1)
        refuse_unknown(values, found.max(axis=1, initial=-1), "--nodes", "check them")
        return found[found >= 0]

    def _numbers(self, values: Sequence[Any] | NDArray[Any], name: str) -> NDArray[np.int64]:
        first, last = self._spaces[name]
        ids, order = self.all[first:last], self._orders[name]
        wanted, is_possible = _as_ids(np.asarray(values), ids.dtype)
        places = np.searchsorted(ids, wanted, sorter=order)
        found = order[np.minimum(places, len(ids) - 1)]
        return np.where(is_possible & (ids[found] == wanted), found + first, -1)


def _as_ids(values: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (n,) as ids of ``dtype``, and which of them can be one: in whole numbers a text may not."""
    if dtype.kind == "U":
        return values.astype(np.str_), np.ones(len(values), np.bool_)
    if values.dtype.kind in "iu":
        return values.astype(np.int64), np.ones(len(values), np.bool_)
    texts = np.char.strip(values.astype(np.str_))
    is_number = np.char.isdecimal(texts) & (np.char.str_len(texts) <= 18)
    return np.where(is_number, texts, "0").astype(np.int64), is_number


def refuse_unknown(values: Any, numbers: NDArray[np.int64], where: str, remedy: str) -> None:
    """Raise InputError if there is no node with one of the ids ``values`` (n,), where ``numbers`` (n,) is −1."""
    unknown = list(dict.fromkeys(f"{values[row]}" for row in np.flatnonzero(numbers < 0)))
    if unknown:
        more = f", … ({len(unknown)} in all)" if len(unknown) > _SHOWN else ""
        raise InputError(f"{where}: unknown node id {', '.join(unknown[:_SHOWN])}{more}: {remedy}")


def read_ids(text: str) -> list[str]:
    """Ids from ``a,b,c``, or of the file of this name: one a line. Raises InputError where there are none."""
    path, words = Path(text), text.split(",")
    try:
        if path.is_file():
            words = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as ids, one a line ({error}): give a text file") from error
    ids = [word.strip() for word in words if word.strip()]
    if not ids:
        raise InputError(f"--nodes must name a node, '{text}' names none: leave it out for all nodes")
    return ids


_SHOWN_BATCHES = 20  # as many batches are walked without a progress bar


@dataclass(frozen=True)
class Moment:
    """A time, and the number of events before it; ``time`` has the type of the stream's times."""

    position: int
    time: int | float


@dataclass(frozen=True)
class _Start:
    """A memory to begin with: ``load`` gives the one before event ``position``, which begins a batch."""

    position: int
    load: Callable[[], NDArray[np.float32]]


class Trained:
    """A trained model with fixed weights, and a node memory that is updated along a stream.

    stream: the events, with the split that the run was trained with. ids: the user's, of its nodes. origin:
    of which weights and events all this is.
    """

    def __init__(
        self,
        model: Tgn,
        stream: EventStream,
        ids: NodeIds,
        *,
        config: TrainConfig,
        batching: Batching,
        inputs: InputBuilder,
        origin: Mapping[str, str],
    ) -> None:
        self.model, self.stream, self.ids, self.config, self.inputs = model, stream, ids, config, inputs
        self.walk = MemoryWalk(stream, config, batching, inputs)
        self.origin, self._batching = origin, batching
        self._starts: list[_Start] = []
        self._state, self._position = np.empty((0, 0), np.float32), -1
        self.start_at(0, lambda: np.zeros((stream.num_nodes, 2 * config.dim_memory), np.float32))

    def start_at(self, position: int, load: Callable[[], NDArray[np.float32]]) -> None:
        """From event ``position`` on, which begins a batch, begin with the memory that ``load`` gives there."""
        self._starts.append(_Start(position, load))

    def moment(self, at: float | None = None) -> Moment:
        """The moment ``at``, which events of that time do not precede; None: right after the last event.

        Raises ConfigError for a fraction where all times are whole numbers.
        """
        times = self.stream.time
        if at is None:
            return Moment(self.stream.num_events, times[-1].item())
        if times.dtype == np.int64:
            if at != int(at):
                raise ConfigError(f"times of this stream are whole numbers, found {at}: round it")
            at = int(at)
        return Moment(int(np.searchsorted(times, times.dtype.type(at), "left")), times.dtype.type(at).item())

    @contextmanager
    def memory(self, position: int) -> Iterator[NDArray[np.float32]]:
        """The memory (N, 2·dim_memory) that has seen events [0, position), while the context lasts; read only.

        Within it no gradients are taken. Moments that ascend cost one walk along the stream.
        """
        with torch.no_grad():
            first = self.carry_to(position)
            updates = self.walk.updates(self.model, self._state, first, position) if first < position else []
            before = [(nodes, self._state[nodes]) for nodes, _ in updates]
            write(self._state, updates)
            try:
                yield self._state
            finally:
                write(self._state, before)

    @torch.no_grad()
    def carry_to(self, position: int) -> int:
        """Carry the memory to the batch that event ``position`` falls into, were there one; → its first event."""
        target = batch_first_of(position, self._batching.cuts)
        start = max((one for one in self._starts if one.position <= target), key=lambda one: one.position)
        if not start.position <= self._position <= target:
            self._state, self._position = start.load(), start.position
        is_long = target - self._position > _SHOWN_BATCHES * self.config.evaluation_batch
        with progress(target - self._position, "memory", shown=is_long) as bar:
            while self._position < target:
                last = self._batching.batch_end(self._position)
                write(self._state, self.walk.updates(self.model, self._state, self._position, last))
                bar.advance(last - self._position)
                self._position = last
        return target

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    @property
    def rows(self) -> NDArray[np.float32]:
        """The memory (N, 2·dim_memory) where :meth:`carry_to` has carried it."""
        return self._state


def open_trained(run: RunDirectory, events: Path | None = None, static: Path | None = None) -> Trained:
    """A run's best weights on its events, or on a longer stream that begins with them.

    events: an event store; None: the one that ``disttgl update`` was last given, else the run's. static: the
    file of static memory, if it has moved. Raises StoreError if a file is missing, damaged, or not of this
    run.
    """
    return _Opened(run, events, static).trained()


def update(run: RunDirectory, events: Path | None = None, static: Path | None = None) -> MemoryOrigin:
    """Carry a run's memory along new events and keep it in the run directory; → what it is of.

    Kept is the memory before the last batch that is not full; the events of that are walked again when they
    are asked for, so that the memory is the one that it would have been with later events known from the
    start. Raises StoreError as :func:`open_trained` does, and where the memory cannot be written; ConfigError
    while a job is training the run.
    """
    run.read_config()  # a lock would make the folder of a run that there is not
    with run.locked():
        opened = _Opened(run, events, static)
        trained = opened.trained()
        origin = opened.origin(trained.carry_to(trained.stream.num_events))
        write_memory(run.memory_file, trained.rows, origin)
    return origin


class _Opened:
    """The files of a run that is put to use, checked against each other."""

    def __init__(self, run: RunDirectory, events: Path | None, static: Path | None) -> None:
        settings = run.read_config()
        self._config = saved_config(settings)
        prepare_process(self._config.threads)
        if static is not None:
            self._config = replace(self._config, static=str(static))
        check_same_static_memory(settings, static_settings(self._config), run.path, "--static FILE")
        self._manifest = _best_manifest(run)
        self._weights = self._manifest.checksums[0]
        trained_on = self._manifest.attributes["settings"]  # the run may have gone on with more events since
        kept = KeptMemory.open(run.memory_file) if run.memory_file.exists() else None
        if kept is not None and kept.origin.weights != self._weights:
            log.info(
                "%s is of other weights than the run's best and is left aside: disttgl update", kept.path
            )
            kept = None
        self._store = _open_store(events or Path(kept.origin.events_path if kept else settings["events"]))
        if kept is not None and kept.origin.events == self._store.checksum != trained_on["checksum"]:
            split = replace(self._store.stream.split, train_end=kept.origin.train_end)
            split = replace(split, validation_end=kept.origin.validation_end)
            self._prefix = prefix_of(self._store, kept.origin.run_events, split)
        else:
            self._prefix = find_prefix(self._store, trained_on["checksum"], Path(trained_on["events"]))
        self._kept = kept

    def trained(self) -> Trained:
        """The model on the stream, with the memories that there are to begin with."""
        store, config, prefix = self._store, self._config, self._prefix
        part, num_nodes = self._manifest.part(0), store.stream.num_nodes
        stream = replace(store.stream, split=prefix.split, static_memory=self._static_rows())
        stream = with_task(replace(store, stream=stream), config).stream
        co_trained = None
        if config.static == CO_TRAINED:
            rows = np.empty((len(prefix.nodes), config.dim_memory), np.float32)
            load_static(part, {"rows": rows})
            co_trained = _placed(rows, prefix, num_nodes)
        device = device_of(config, 0)
        model = build_model(stream, config).to(device)
        load_weights(part, model)
        batching = batching_of(stream, config, GridShape.parse(self._manifest.attributes["grid"]))
        inputs = InputBuilder(stream, device, co_trained)
        ids = NodeIds(store.node_ids(), stream.num_src)
        origin = {"weights": self._weights, "events": store.checksum}
        trained = Trained(model, stream, ids, config=config, batching=batching, inputs=inputs, origin=origin)
        trained.start_at(prefix.split.train_end, self._checkpointed)
        self._start_at_kept(trained)
        return trained

    def origin(self, position: int) -> MemoryOrigin:
        """What a memory of these files is of."""
        prefix = self._prefix
        return MemoryOrigin(
            weights=self._weights,
            events=self._store.checksum,
            events_path=str(self._store.path.resolve()),
            position=position,
            run_events=prefix.num_events,
            train_end=prefix.split.train_end,
            validation_end=prefix.split.validation_end,
        )

    def _checkpointed(self) -> NDArray[np.float32]:
        """The memory that the best sweep has left, of the store's nodes."""
        rows = np.empty((len(self._prefix.nodes), 2 * self._config.dim_memory), np.float32)
        load_memory(self._manifest.part(0), 0, rows)
        return _placed(rows, self._prefix, self._store.stream.num_nodes)

    def _start_at_kept(self, trained: Trained) -> None:
        """Begin with the memory of ``disttgl update``, if it is of these events or of the first of them."""
        kept, store = self._kept, self._store
        if kept is None:
            return
        known = {one.checksum: one for one in store.grown_from}
        ancestor = known.get(kept.origin.events)
        if kept.origin.events == store.checksum:
            prefix = Prefix(store.stream.num_events, store.stream.split, np.arange(store.stream.num_nodes))
        elif ancestor is not None:
            prefix = prefix_of(store, ancestor.num_events, ancestor.split)
        else:
            return
        if len(kept.rows) != len(prefix.nodes) or kept.origin.position > prefix.num_events:
            raise StoreError(
                f"{kept.path}: has rows of other nodes: remove it, disttgl update makes it again"
            )
        kept.verify()
        trained.start_at(kept.origin.position, lambda: _placed(kept.rows, prefix, store.stream.num_nodes))

    def _static_rows(self) -> NDArray[np.float32] | None:
        """The static memory that was learned beforehand, zeros for nodes that have come since."""
        if self._config.static in {"", CO_TRAINED}:
            return None
        rows, prefix = StaticStore.open(Path(self._config.static)).rows, self._prefix
        if len(prefix.nodes) == self._store.stream.num_nodes == len(rows):
            return rows
        return _placed(rows, prefix, self._store.stream.num_nodes)


def _placed(rows: NDArray[np.float32], prefix: Prefix, num_nodes: int) -> NDArray[np.float32]:
    """Rows of a run's nodes (n, …) as rows of a store's (num_nodes, …), zeros for the others. Raises StoreError."""
    if len(rows) != len(prefix.nodes):
        raise StoreError(
            f"the run knows {len(rows):,} nodes, its events in this store have {len(prefix.nodes):,}: give a store "
            "that disttgl append has made of the run's events"
        )
    placed = np.zeros((num_nodes, *rows.shape[1:]), np.float32)
    placed[prefix.nodes] = rows
    return placed


def _best_manifest(run: RunDirectory) -> Manifest:
    """Manifest of the best sweep's checkpoint, whose parts are whole. Raises StoreError."""
    manifest = read_manifest(run.best_checkpoint.parent)
    check_attributes(manifest)
    verify_parts(manifest)
    return manifest


def _open_store(path: Path) -> EventStore:
    """An event store whose contents can be. Raises StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: the events are not there: say where they are (--events EVENTS)")
    return EventStore.open(path, check=True)
