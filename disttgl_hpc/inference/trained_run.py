"""A trained run: its best weights, and its node memory at any moment of a stream.

The memory at a moment includes all events strictly before it, in the batches of the run: those of training,
then evaluation batches; the last batch ends at the moment, full or not. Before the end of training the best
weights compute it from zero; after it they continue from the memory of the best sweep, as in evaluation. So
it depends only on the run and on events before the moment.

:func:`open_trained` loads a run; :func:`update` keeps its memory after new events, which makes later calls
faster. :class:`NodeIds` maps the user's ids to nodes.
"""

from __future__ import annotations

import os
import re
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
IDS_REMEDY = "check the ids, or the name of their file, whose header, if it has one, must name a column id"
_INTEGER, _BOUND = re.compile("-?[0-9]{1,19}"), 2**63  # of int64
_SHOWN_IDS = 5  # unknown ids in an error message
_SHOWN_BATCHES = 20  # walks of at most this many batches have no progress bar


class NodeIds:
    """Maps the user's ids to a stream's nodes; in bipartite streams sources and destinations have separate ids."""

    def __init__(self, ids: Ids, num_src: int) -> None:
        self.all, self.num_src = ids, num_src
        spaces = {"sources": (0, num_src), "destinations": (num_src, len(ids))}
        self._spaces = spaces if num_src else {"nodes": (0, len(ids))}
        self._orders = {
            name: np.argsort(ids[slice(*ends)], kind="stable") for name, ends in self._spaces.items()
        }

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and destinations are separate node sets."""
        return self.num_src > 0

    @property
    def destinations(self) -> tuple[int, int]:
        """Range [first, last) of the nodes that can be destinations."""
        return self.num_src, len(self.all)

    def kinds(self, nodes: NDArray[np.int64]) -> NDArray[np.str_]:
        """Return "source" or "destination" for each of ``nodes`` (n,) of a bipartite stream."""
        return np.where(nodes < self.num_src, "source", "destination")

    def sources(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Return the source with each id (n,), −1 for unknown ids."""
        return self._numbers(values, "sources" if self.is_bipartite else "nodes")

    def targets(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Return the destination with each id (n,), −1 for unknown ids."""
        return self._numbers(values, "destinations" if self.is_bipartite else "nodes")

    def nodes(self, values: Sequence[Any] | NDArray[Any] | None, of: str | None = None) -> NDArray[np.int64]:
        """Return the nodes with these ids, in their order; all nodes if ``values`` is None.

        of: restrict a bipartite stream to its "sources" or "destinations"; otherwise an id of both yields
        both. Raises InputError for unknown ids, ConfigError if ``of`` is set and the stream is not bipartite.
        """
        if of is not None and of not in self._spaces:
            raise ConfigError(
                f"cannot choose {of}: the stream is not bipartite, it has one set of "
                f"nodes; leave the choice out"
            )
        spaces = list(self._spaces) if of is None else [of]
        if values is None:
            return np.concatenate([np.arange(*self._spaces[name]) for name in spaces])
        found = np.stack([self._numbers(values, name) for name in spaces], axis=1)
        refuse_unknown(values, found.max(axis=1, initial=-1), "--nodes", IDS_REMEDY)
        return found[found >= 0]

    def _numbers(self, values: Sequence[Any] | NDArray[Any], name: str) -> NDArray[np.int64]:
        first, last = self._spaces[name]
        ids, order = self.all[first:last], self._orders[name]
        wanted, is_possible = _as_ids(np.asarray(values), ids.dtype)
        places = np.searchsorted(ids, wanted, sorter=order)
        found = order[np.minimum(places, len(ids) - 1)]
        return np.where(is_possible & (ids[found] == wanted), found + first, -1)


def _as_ids(values: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (n,) as ids of ``dtype``, and which of them are valid: a text may not be an int64."""
    if dtype.kind == "U":
        return values.astype(np.str_), np.ones(len(values), np.bool_)
    if values.dtype.kind == "i":
        return values.astype(np.int64), np.ones(len(values), np.bool_)
    texts = [f"{value}".strip() for value in values.tolist()]
    numbers = [int(text) if _INTEGER.fullmatch(text) else None for text in texts]
    valid = np.array([number is not None and -_BOUND <= number < _BOUND for number in numbers], np.bool_)
    return np.array(
        [number if fits else 0 for number, fits in zip(numbers, valid, strict=True)], np.int64
    ), valid


def refuse_unknown(values: Any, numbers: NDArray[np.int64], where: str, remedy: str) -> None:
    """Raise InputError listing the ids ``values`` (n,) whose node in ``numbers`` (n,) is −1."""
    unknown = list(dict.fromkeys(f"{values[row]}" for row in np.flatnonzero(numbers < 0)))
    if unknown:
        more = f", … ({len(unknown)} in all)" if len(unknown) > _SHOWN_IDS else ""
        raise InputError(
            f"{where}: unknown node id{'s' * (len(unknown) > 1)} {', '.join(unknown[:_SHOWN_IDS])}{more}: {remedy}"
        )


@dataclass(frozen=True)
class Moment:
    """A time and the number of events before it; ``time`` has the type of the stream's times."""

    position: int
    time: int | float


@dataclass(frozen=True)
class _Start:
    """A starting point: ``load`` returns the memory before event ``position``, the first event of a batch."""

    position: int
    load: Callable[[], NDArray[np.float32]]


class Trained:
    """A model with fixed weights and a node memory that is advanced along a stream.

    stream: the events, with the split of the run. ids: maps the user's ids to nodes. origin: checksums of the
    weights and the events.
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
        """Add a starting point: ``load`` returns the memory before event ``position``, the first of a batch."""
        self._starts.append(_Start(position, load))

    def moment(self, at: float | None = None) -> Moment:
        """Return the moment just before the events at time ``at``; None: right after the last event.

        Raises ConfigError if ``at`` is not finite, or no int64 where the stream's times are.
        """
        times = self.stream.time
        if at is None:
            return Moment(self.stream.num_events, times[-1].item())
        try:
            time = times.dtype.type(at)
            is_time = time == at and bool(np.isfinite(time))
        except (ValueError, OverflowError):
            is_time = False
        if not is_time:
            kind, remedy = "", "a finite number"
            if times.dtype == np.int64:
                kind, remedy = "integer ", "an integer of at most 64 bits"
            raise ConfigError(f"the stream has {kind}times, found {at}: pass {remedy}")
        return Moment(int(np.searchsorted(times, time, "left")), time.item())

    @contextmanager
    def memory(self, position: int) -> Iterator[NDArray[np.float32]]:
        """Yield the memory (N, 2·dim_memory) after events [0, position); read-only and valid inside the context.

        Gradients are disabled inside it. Ascending positions cost one pass over the stream in all.
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
        """Advance the memory to the start of the batch of event ``position``; return the first event of that batch."""
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
        """The model's device."""
        return next(self.model.parameters()).device

    @property
    def rows(self) -> NDArray[np.float32]:
        """The memory (N, 2·dim_memory) as :meth:`carry_to` left it."""
        return self._state


def open_trained(run: RunDirectory, events: Path | None = None, static: Path | None = None) -> Trained:
    """Load a run's best weights for its events, or for a longer stream that starts with them.

    events: an event store; None: that of the last ``disttgl update``, else that of the run. static: the
    static memory file if it was moved. Raises StoreError if a file is missing, damaged, or of another run.
    """
    return _Opened(run, events, static).trained()


def update(run: RunDirectory, events: Path | None = None, static: Path | None = None) -> MemoryOrigin:
    """Advance a run's memory over new events and keep it in the run directory; return its origin.

    The memory before the last, incomplete batch is kept and that batch is processed again on use, so results
    equal those without ``update``, also after further events. Raises StoreError as :func:`open_trained` does
    or if the memory cannot be written, and ConfigError while a job trains the run.
    """
    run.read_config()  # fails if there is no run; locking would create its folder
    with run.locked():
        opened = _Opened(run, events, static)
        trained = opened.trained()
        origin = opened.origin(trained.carry_to(trained.stream.num_events))
        write_memory(run.memory_file, trained.rows, origin)
    return origin


class _Opened:
    """The files of a trained run, checked against each other."""

    def __init__(self, run: RunDirectory, events: Path | None, static: Path | None) -> None:
        settings = run.read_config()
        self._config = saved_config(settings)
        prepare_process(self._config.threads)
        if static is not None:
            self._config = replace(self._config, static=str(static))
        check_same_static_memory(settings, static_settings(self._config), run.path, "--static FILE")
        self._manifest = _best_manifest(run)
        self._weights = self._manifest.checksums[0]
        trained_on = self._manifest.attributes[
            "settings"
        ]  # the run may have continued with more events since
        kept = KeptMemory.open(run.memory_file) if run.memory_file.exists() else None
        if kept is not None and kept.origin.weights != self._weights:
            log.info(
                "%s was computed with other weights than the run's best and is ignored: run disttgl update",
                kept.path,
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
        """Build the model for the stream and add all available starting points."""
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
        """Return the origin of a memory computed from these files."""
        prefix = self._prefix
        return MemoryOrigin(
            weights=self._weights,
            events=self._store.checksum,
            events_path=os.path.realpath(self._store.path),
            position=position,
            run_events=prefix.num_events,
            train_end=prefix.split.train_end,
            validation_end=prefix.split.validation_end,
        )

    def _checkpointed(self) -> NDArray[np.float32]:
        """Return the memory after the best sweep, in the store's node order."""
        rows = np.empty((len(self._prefix.nodes), 2 * self._config.dim_memory), np.float32)
        load_memory(self._manifest.part(0), 0, rows)
        return _placed(rows, self._prefix, self._store.stream.num_nodes)

    def _start_at_kept(self, trained: Trained) -> None:
        """Add the kept memory as a starting point if it is of these events or of a prefix of them."""
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
                f"{kept.path}: does not match the nodes of {store.path}: remove it and run disttgl update"
            )
        kept.verify()
        trained.start_at(kept.origin.position, lambda: _placed(kept.rows, prefix, store.stream.num_nodes))

    def _static_rows(self) -> NDArray[np.float32] | None:
        """Return the pre-trained static memory, zeros for nodes that are new in the store."""
        if self._config.static in {"", CO_TRAINED}:
            return None
        rows, prefix = StaticStore.open(Path(self._config.static), check=True).rows, self._prefix
        if len(prefix.nodes) == self._store.stream.num_nodes == len(rows):
            return rows
        return _placed(rows, prefix, self._store.stream.num_nodes)


def _placed(rows: NDArray[np.float32], prefix: Prefix, num_nodes: int) -> NDArray[np.float32]:
    """Place rows of a run's nodes (n, …) in rows of a store (num_nodes, …), zeros elsewhere. Raises StoreError."""
    if len(rows) != len(prefix.nodes):
        raise StoreError(
            f"the run has {len(rows):,} nodes, but its events in this store have "
            f"{len(prefix.nodes):,}: pass a store "
            "that disttgl append made from the run's events"
        )
    placed = np.zeros((num_nodes, *rows.shape[1:]), np.float32)
    placed[prefix.nodes] = rows
    return placed


def _best_manifest(run: RunDirectory) -> Manifest:
    """Read the manifest of the best checkpoint and verify its parts. Raises StoreError."""
    manifest = read_manifest(run.best_checkpoint.parent)
    check_attributes(manifest)
    verify_parts(manifest)
    return manifest


def _open_store(path: Path) -> EventStore:
    """Open an event store and check its contents. Raises StoreError."""
    if not os.path.exists(path):
        raise StoreError(f"{path}: event store not found: pass its path (--events EVENTS)")
    return EventStore.open(path, check=True)
