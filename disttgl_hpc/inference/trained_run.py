"""A trained run put to use: its best weights, and its node memory as of any moment of a stream.

The memory at a moment has seen all events strictly before it, in the batches of the run: those of training, then
evaluation batches; the last of them ends at the moment, full or not. Before the end of training it is carried there
from zero by the best weights; from there on it is carried on from what the best sweep has left, as in evaluation.
So it depends on the run and on events before the moment, and on nothing else.

From the files of a run to a model and a memory that can be asked, and the memory kept for the next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.evaluation.evaluator import MemoryWalk, write
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import Batching, GridShape
from disttgl_hpc.inference.node_ids import NodeIds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.model.threads import prepare_process
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
    """A model whose weights stay as they are, and a node memory that is carried along a stream.

    stream: the events, with the split that the run was trained with. ids: the user's, of its nodes. origin: of
    which weights and events all this is.
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

    events: an event store; None: the one that ``disttgl update`` was last given, else the run's. static: the file
    of static memory, if it has moved. Raises StoreError if a file is missing, damaged, or not of this run.
    """
    return _Opened(run, events, static).trained()


def update(run: RunDirectory, events: Path | None = None, static: Path | None = None) -> MemoryOrigin:
    """Carry a run's memory along new events and keep it in the run directory; → what it is of.

    Kept is the memory before the last batch that is not full; the events of that are walked again when they are
    asked for, so that the memory is the one that it would have been with later events known from the start.
    Raises StoreError as :func:`open_trained` does, and where the memory cannot be written; ConfigError while a job
    is training the run.
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
                f"{kept.path}: has rows of other nodes: remove it, and disttgl update makes it anew"
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
