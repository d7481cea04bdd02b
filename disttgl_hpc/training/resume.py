"""Where a run begins: from nothing, or from the newest whole checkpoint of its directory.

Longer event stores: that one begins with a run's events, and who is who among their nodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import nn

from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.events.stream import Split
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.ingest.ids import IdTable
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.node_memory import Beginning
from disttgl_hpc.model.optimiser import Adam
from disttgl_hpc.planning.run_plan import Before
from disttgl_hpc.store.checkpoint_files import Manifest, read_manifest, verify_parts
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.checkpoints import (
    check_attributes,
    load_memory,
    load_optimiser,
    load_static,
    load_weights,
    read_trainer,
)
from disttgl_hpc.training.run_directory import RunDirectory, saved_config
from disttgl_hpc.training.run_events import check_same_static_memory

log = get_logger(__name__)


_PIECE = 1 << 20


@dataclass(frozen=True)
class Prefix:
    """The events of a run at the beginning of a store: the first ``num_events``, and how they were split.

    nodes: (N,) int64, the store's number of each of the run's N nodes.
    """

    num_events: int
    split: Split
    nodes: NDArray[np.int64]


def find_prefix(store: EventStore, checksum: str, original: Path) -> Prefix:
    """Where in ``store`` the events lie whose store had this ``checksum``, and lies or lay at ``original``.

    The store may be that very one; have grown out of it, of which ``disttgl append`` leaves a note; or begin with
    the same events, which is compared if the original is still there. Raises StoreError otherwise.
    """
    stream = store.stream
    if store.checksum == checksum:
        return Prefix(stream.num_events, stream.split, np.arange(stream.num_nodes))
    for ancestor in store.grown_from:
        if ancestor.checksum == checksum:
            return prefix_of(store, ancestor.num_events, ancestor.split)
    if not original.is_file() or (other := EventStore.open(original)).checksum != checksum:
        raise StoreError(
            f"{store.path}: must begin with the events that the run was trained on (checksum {checksum[:16]}…), "
            f"which cannot be seen: it was not made of them by disttgl append, and they are not at {original} any "
            "more: put them back there, or give the store that was made of them"
        )
    found = prefix_of(store, other.stream.num_events, other.stream.split)
    difference = _difference(other, store, found.nodes)
    if difference:
        raise StoreError(
            f"{store.path}: must begin with the events of {original}, on which the run was trained; {difference}: "
            "give a store that was prepared of them and of later events, or train on these"
        )
    return found


def prefix_of(store: EventStore, num_events: int, split: Split) -> Prefix:
    """The first ``num_events`` of a store as one of their own; its nodes are numbered as ``prepare`` does."""
    nodes, ids = np.flatnonzero(store.stream.tcsr.known_before(num_events)), store.node_ids()
    if ids.dtype.kind == "U":  # texts: without the later ones, they may all be numbers, which sort otherwise
        spaces = np.split(nodes, [np.searchsorted(nodes, store.stream.num_src)])
        nodes = np.concatenate([space[_order(ids[space].astype(np.str_))] for space in spaces])
    return Prefix(num_events, split, nodes)


def _order(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """Order in which ``prepare`` numbers distinct ids."""
    if not len(ids):
        return np.empty(0, np.int64)
    table = IdTable()
    table.encode(pa.array(ids), Origin(Path(), 0, str))
    return np.argsort(table.ranks_and_ids()[0])


def _difference(one: EventStore, longer: EventStore, nodes: NDArray[np.int64]) -> str:
    """What is not the same in the events of ``one`` and the first of ``longer``; empty if all is."""
    mine, theirs, count = one.stream, longer.stream, one.stream.num_events
    if count > theirs.num_events:
        return f"it has fewer, {theirs.num_events:,} of {count:,}"
    ids, other_ids = one.node_ids().astype(np.str_), longer.node_ids().astype(np.str_)
    same_kind = bool(mine.num_src) == bool(theirs.num_src)
    if len(nodes) != mine.num_nodes or not same_kind or (other_ids[nodes] != ids).any():
        return "their nodes are others"
    if _differ(mine.node_features, theirs.node_features, slice(None), nodes):
        return "features of their nodes are others"
    columns = {
        "sources": (nodes[mine.src], theirs.src),
        "destinations": (nodes[mine.dst], theirs.dst),
        "times": (mine.time, theirs.time),
        "features": (mine.edge_features, theirs.edge_features),
        "classes": (_named(one), _named(longer)),
        "several classes an event": (mine.edge_classes, theirs.edge_classes),
        "labels of nodes": (one.node_labels, longer.node_labels),
    }
    for name, (ours, others) in columns.items():
        for start in range(0, count, _PIECE):
            where = slice(start, min(start + _PIECE, count))
            if _differ(ours, others, where, where):
                return f"{name} are others"
    if _differ(mine.edge_scale, theirs.edge_scale, slice(None), slice(None)):
        return "features are stored in other steps"
    return ""


def _named(store: EventStore) -> NDArray[Any] | None:
    """Classes of events by their names, where they have some."""
    labels = store.stream.edge_labels
    return labels if labels is None or not store.class_names else np.array(store.class_names)[labels]


def _differ(one: NDArray[Any] | None, other: NDArray[Any] | None, where: Any, where_other: Any) -> bool:
    """Whether rows of two arrays are not the same, or only one of these is there."""
    if one is None or other is None:
        return one is not other
    return not np.array_equal(one[where], other[where_other])


@dataclass(frozen=True)
class Start(Beginning):
    """Where a run begins, and on which grid; a subclass goes on from a checkpoint.

    before: what was trained on other grids. grid: the one that the memory is of. is_tested: all was done already,
    unless epochs have been added. is_validated: so is the sweep that ends here, if one does; it is not to be again.
    """

    before: Before = Before()  # noqa: RUF009 - frozen
    grid: str = ""
    is_tested: bool = False
    is_validated: bool = False

    def load_model(self, model: nn.Module, optimiser: Adam) -> None:
        """Weights and optimiser as of the step before; those of a new model are right already."""

    def load_static(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """A co-trained static memory and its optimiser; those of a new one are zeros already."""

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """A trainer's (summed loss, events) of the running sweep, and what memory its next pass needs."""
        return np.zeros(2), None


@dataclass(frozen=True, kw_only=True)
class Resumption(Start):
    """Goes on from a checkpoint: exactly, or with ``is_same_grid`` False from a sweep's end on another grid.

    Then replica 0's memory is still wanted for the validation of that sweep, and the totals for its record.
    """

    manifest: Manifest
    is_same_grid: bool = True

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """Fill ``out`` from the part of the node that held this replica; another grid's replicas begin anew."""
        if self.is_same_grid or replica == 0:
            load_memory(self._part(replica, GridShape.parse(self.grid).memory), replica, out)

    def load_model(self, model: nn.Module, optimiser: Adam) -> None:
        """Set weights and optimiser state. Raises StoreError."""
        load_weights(self._part(0, 1), model)
        load_optimiser(self._part(0, 1), model, optimiser)

    def load_static(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill the arrays of the table. Raises StoreError."""
        load_static(self._part(0, 1), arrays)

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Totals and memory in hand; of another grid, the totals of all its trainers go to the first one."""
        num_trainers = GridShape.parse(self.grid).num_trainers
        if self.is_same_grid:
            return read_trainer(self._part(trainer, num_trainers), trainer)
        shares = range(num_trainers) if trainer == 0 else ()
        return sum((read_trainer(self._part(t, num_trainers), t)[0] for t in shares), np.zeros(2)), None

    def _part(self, index: int, count: int) -> Path:
        """The part with replica or trainer ``index`` of ``count``, which are spread evenly over the nodes."""
        return self.manifest.part(index * len(self.manifest.checksums) // count)


@dataclass(frozen=True, kw_only=True)
class Regrowth(Resumption):
    """Goes on with the weights and the optimiser of a sweep's end on a longer stream, where memories begin anew."""

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """A memory of other nodes is of no use here."""

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Nothing is left to add up, and nothing in hand."""
        return np.zeros(2), None


def resumed_config(
    run: RunDirectory, given: Mapping[str, Any], remedy: str = "begin another run with --run"
) -> TrainConfig:
    """Settings of a run that goes on: its own, changed by ``given`` where that leaves its past as it is.

    Raises ConfigError with all other differences; ``remedy``: what to do to keep them.
    """
    saved = saved_config(run.read_config())
    if not given.get("time_unit"):  # what was chosen stays, though later events would have another choice
        given = {**given, "time_unit": saved.time_unit}
    wanted = train_config(saved.as_dict(), given)
    differences = _differences(saved, wanted)
    if wanted.epochs < saved.epochs:
        differences.append(f"epochs {saved.epochs}, now {wanted.epochs} (may be raised)")
    if differences:
        raise ConfigError(
            f"{run.path}: a resumed run keeps what decides its result, these differ: {', '.join(differences)}; "
            f"leave them out, or {remedy}"
        )
    return wanted


def _differences(saved: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Settings that decide the result and are not the same."""
    return [
        f"{setting.name} {getattr(saved, setting.name)}, now {getattr(wanted, setting.name)}"
        for setting in fields(TrainConfig)
        if not setting.metadata["is_free"] and getattr(saved, setting.name) != getattr(wanted, setting.name)
    ]


def find_start(
    run: RunDirectory, shape: GridShape, settings: Mapping[str, Any], store: EventStore | None = None
) -> Start:
    """Where a run of ``settings`` goes on: its newest whole checkpoint, of another grid the last sweep's end.

    Without any, the run begins anew. store: the events, which may be more than the run has known; then it goes on
    from the last sweep's end, too. Raises StoreError if checkpoints are there and none of them is whole.
    """
    check_same_static_memory(run.read_config(), dict(settings), run.path, "train --resume RUN --static FILE")
    newest = _newest_whole(run, shape.option)
    if newest is None:
        log.info("%s has no checkpoint yet: the run begins anew", run.path)
        return Start(grid=shape.option)
    is_longer = newest.attributes["settings"]["checksum"] != settings["checksum"]
    if is_longer:
        _check_longer(newest, settings, store)
        newest = _newest_whole(run, None) or newest
    is_tested = any(record["record"] == "test" for record in run.records())
    found = newest.attributes
    differences = _differences(saved_config(found["settings"]), saved_config(dict(settings)))
    if differences:
        raise StoreError(
            f"{newest.folder}: config.json has changed since ({', '.join(differences)}): restore it"
        )
    step, before = found["step"], Before(**found["before"])
    if is_longer:
        log.info(
            "going on with a longer stream from the end of sweep %d (step %d). Carried over: weights, optimiser. "
            "Not carried over: the replicas' memory, the best validation, steps after that sweep's end",
            found["sweep"],
            step,
        )
        before = Before(epochs=found["epochs"], sweeps=found["sweep"], steps=step, same_events=False)
        return Regrowth(
            before=before, grid=shape.option, is_tested=is_tested, is_validated=True, manifest=newest
        )
    if found["grid"] == shape.option:
        log.info("resuming from the checkpoint before step %d", step)
        return Resumption(
            step=step - before.steps, before=before, grid=shape.option, is_tested=is_tested, manifest=newest
        )
    log.info(
        "resuming on %s from the end of sweep %d (step %d), trained on %s. Carried over: weights, optimiser. Not "
        "carried over: the replicas' memory and places in the stream, passes in hand, steps after that sweep's end",
        shape,
        found["sweep"],
        step,
        GridShape.parse(found["grid"]),
    )
    before = Before(epochs=found["epochs"], sweeps=found["sweep"], steps=step)
    return Resumption(
        before=before, grid=found["grid"], is_tested=is_tested, manifest=newest, is_same_grid=False
    )


def _check_longer(newest: Manifest, settings: Mapping[str, Any], store: EventStore | None) -> None:
    """Raise StoreError unless a checkpoint's events are the first of ``store``; ConfigError for static memory."""
    saved = newest.attributes["settings"]
    try:
        if store is None:
            raise StoreError("their store is not at hand")
        find_prefix(store, saved["checksum"], Path(saved["events"]))
    except StoreError as error:
        raise StoreError(
            f"{newest.folder}: was written with other events than config.json names: restore it, or go on with a "
            f"store that begins with them ({error})"
        ) from error
    if settings["static"]:
        raise ConfigError(
            "static memory is of the nodes and the training events it was learned of: a run with it cannot go on "
            "with a longer stream; begin another one with --run"
        )


def _newest_whole(run: RunDirectory, grid: str | None) -> Manifest | None:
    """The newest checkpoint that ``grid`` can go on from and whose parts are all as they were written.

    None: the newest that ends a sweep.
    """
    damaged, other_grid = [], ""
    for folder in reversed(run.whole_checkpoints):
        try:
            manifest = read_manifest(folder)
            check_attributes(manifest)
            if manifest.attributes["grid"] == grid or manifest.attributes["ends_sweep"]:
                verify_parts(manifest)
                return manifest
            other_grid = manifest.attributes["grid"]
        except StoreError as error:
            log.warning("%s", error)
            damaged.append(f"{folder.name}")
    if damaged:
        raise StoreError(
            f"{run.checkpoints}: none of {', '.join(damaged)} is whole: restore one, or begin anew"
        )
    if other_grid:
        what = "a longer stream" if grid is None else f"grid {grid}"
        with_what = "the events it was begun with" if grid is None else f"--grid {other_grid}"
        raise ConfigError(
            f"{run.path}: {what} can go on from a sweep's end only, and {other_grid} has ended none yet: "
            f"resume with {with_what}, or begin another run"
        )
    return None
