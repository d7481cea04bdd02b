"""From the files of a run to a model and a memory that can be asked, and the memory kept for the next time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED
from disttgl_hpc.errors import StoreError
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.inference.node_ids import NodeIds
from disttgl_hpc.inference.trained_run import Trained
from disttgl_hpc.log import get_logger
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.threads import prepare_process
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.checkpoint_manifest import Manifest, read_manifest, verify_parts
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.kept_memory import KeptMemory, MemoryOrigin, write_memory
from disttgl_hpc.store.node_rows import StaticStore
from disttgl_hpc.training.checkpoints import check_attributes, load_memory, load_static, load_weights
from disttgl_hpc.training.longer import Prefix, find_prefix, prefix_of
from disttgl_hpc.training.run_directory import RunDirectory, saved_config
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.run_static import check_same_static_memory, static_settings

log = get_logger(__name__)


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
