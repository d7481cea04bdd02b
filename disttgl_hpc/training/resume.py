"""The start of a run: from nothing, or from the newest whole checkpoint of its directory.

A run may also continue on a longer store, which must begin with the run's events; ``find_prefix`` maps their
nodes. ``Job`` is what all ranks of a run know once its start is found.
"""

from __future__ import annotations

import os
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
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.ingest.ids import IdTable
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.node_memory import Beginning
from disttgl_hpc.model.parameters import Adam
from disttgl_hpc.planning.run_plan import Before, RunPlan
from disttgl_hpc.sampling.local_batch import SAMPLING_VERSION, GraphSource
from disttgl_hpc.store.checkpoint_files import Manifest
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.checkpoints import (
    best_before,
    load_memory,
    load_optimiser,
    load_static,
    load_weights,
    newest_whole,
    read_trainer,
)
from disttgl_hpc.training.run_directory import Best, RunDirectory, saved_config
from disttgl_hpc.training.run_events import check_same_static_memory, static_settings

log = get_logger(__name__)

_PIECE = 1 << 20  # events that are compared at a time


@dataclass(frozen=True)
class Prefix:
    """The events of a run at the beginning of a store: their number and split.

    nodes: (N,) int64, the store's number of each of the run's N nodes.
    """

    num_events: int
    split: Split
    nodes: NDArray[np.int64]


def find_prefix(store: EventStore, checksum: str, original: Path) -> Prefix:
    """The part of ``store`` with the events of the store of this ``checksum``, whose path is or was ``original``.

    The store may be that one; an extension of it, which ``disttgl append`` records; or any store that begins
    with the same events, which is checked if the original still exists. Raises StoreError otherwise.
    """
    stream = store.stream
    if store.checksum == checksum:
        return Prefix(stream.num_events, stream.split, np.arange(stream.num_nodes))
    for ancestor in store.grown_from:
        if ancestor.checksum == checksum:
            return prefix_of(store, ancestor.num_events, ancestor.split)
    if not os.path.isfile(original) or (other := EventStore.open(original, check=True)).checksum != checksum:
        raise StoreError(
            f"{store.path}: must begin with the events that the run was trained on (checksum {checksum[:16]}…), "
            f"which cannot be checked: it was not extended by disttgl append, and {original} no longer exists: restore "
            "that store, or use one made from it by disttgl append"
        )
    found = prefix_of(store, other.stream.num_events, other.stream.split)
    difference = _difference(other, store, found.nodes)
    if difference:
        raise StoreError(
            f"{store.path}: must begin with the events of {original}, on which the run was trained; {difference}: "
            "use a store prepared from these and later events, or begin another run"
        )
    return found


def prefix_of(store: EventStore, num_events: int, split: Split) -> Prefix:
    """The first ``num_events`` of a store; its nodes in the order in which ``prepare`` numbers them."""
    nodes, ids = np.flatnonzero(store.stream.tcsr.known_before(num_events)), store.node_ids()
    if ids.dtype.kind == "U":  # without later ids, all texts may be numbers, which sort differently
        spaces = np.split(nodes, [np.searchsorted(nodes, store.stream.num_src)])
        nodes = np.concatenate([space[_order(ids[space].astype(np.str_))] for space in spaces])
    return Prefix(num_events, split, nodes)


def _order(ids: NDArray[np.str_]) -> NDArray[np.int64]:
    """The order in which ``prepare`` numbers distinct ids."""
    if not len(ids):
        return np.empty(0, np.int64)
    table = IdTable()
    table.encode(pa.array(ids), Origin(Path(), 0, str))
    return np.argsort(table.ranks_and_ids()[0])


def _difference(one: EventStore, longer: EventStore, nodes: NDArray[np.int64]) -> str:
    """The first difference between the events of ``one`` and the first events of ``longer``; empty if none."""
    mine, theirs, count = one.stream, longer.stream, one.stream.num_events
    if count > theirs.num_events:
        return f"it has fewer, {theirs.num_events:,} of {count:,}"
    ids, other_ids = one.node_ids().astype(np.str_), longer.node_ids().astype(np.str_)
    same_kind = bool(mine.num_src) == bool(theirs.num_src)
    if len(nodes) != mine.num_nodes or not same_kind or (other_ids[nodes] != ids).any():
        return "their nodes differ"
    if _differ(mine.node_features, theirs.node_features, slice(None), nodes):
        return "their node features differ"
    columns = {
        "sources": (nodes[mine.src], theirs.src),
        "destinations": (nodes[mine.dst], theirs.dst),
        "times": (mine.time, theirs.time),
        "features": (mine.edge_features, theirs.edge_features),
        "event classes": (_labels_as_in(longer, one), theirs.edge_labels),
        "classes of events": (mine.edge_classes, theirs.edge_classes),
        "node labels": (one.node_labels, longer.node_labels),
    }
    for name, (ours, others) in columns.items():
        for start in range(0, count, _PIECE):
            where = slice(start, min(start + _PIECE, count))
            if _differ(ours, others, where, where):
                return f"their {name} differ"
    if _differ(mine.edge_scale, theirs.edge_scale, slice(None), slice(None)):
        return "their features are stored with another scale"
    return ""


def _labels_as_in(longer: EventStore, one: EventStore) -> NDArray[np.int64] | None:
    """Event classes of ``one`` in the numbers of ``longer``, by their names if they have any; −2 if not in it."""
    labels = one.stream.edge_labels
    if labels is None or one.class_names == longer.class_names:
        return labels
    numbers = {name: number for number, name in enumerate(longer.class_names)}
    table = np.array([*(numbers.get(name, -2) for name in one.class_names), -1])  # −1, unknown, is the last
    return table[labels]


def _differ(one: NDArray[Any] | None, other: NDArray[Any] | None, where: Any, where_other: Any) -> bool:
    """Whether rows of two arrays differ, or only one array exists."""
    if one is None or other is None:
        return one is not other
    return not np.array_equal(one[where], other[where_other])


@dataclass(frozen=True)
class Start(Beginning):
    """The start of a run, here from nothing; subclasses continue from a checkpoint.

    before: training on other grids so far. grid: the grid of the loaded memory. is_tested: whether the run
    was complete before. is_recorded: whether the sweep that ends here, if any, has its record. best: the best
    of the recorded sweeps.
    """

    before: Before = Before()  # noqa: RUF009 - frozen
    grid: str = ""
    is_tested: bool = False
    is_recorded: bool = False
    best: Best | None = None

    def leaves_nothing_of(self, plan: RunPlan) -> bool:
        """Whether all steps of ``plan`` and, unless its events are new, the test are done."""
        return self.step == plan.num_steps and (self.is_tested or not plan.before.same_events)

    def load_model(self, model: nn.Module, optimiser: Adam) -> None:
        """Load weights and optimiser of the step before; a new model keeps its initial weights."""

    def load_static(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Load a co-trained static memory and its optimiser; a new one is zero."""

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """A trainer's (summed loss, events) of the current sweep, and the memory for its next pass, if it holds any."""
        return np.zeros(2), None


@dataclass(frozen=True, kw_only=True)
class Resumption(Start):
    """Continues from a checkpoint: exactly, or with ``is_same_grid`` False from the end of a sweep on another grid.

    In that case replica 0's memory and the totals are needed for validating and recording that sweep.
    """

    manifest: Manifest
    is_same_grid: bool = True

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """Fill ``out`` from the part of the replica's node; replicas of another grid start empty."""
        if self.is_same_grid or replica == 0:
            load_memory(self._part(replica, GridShape.parse(self.grid).memory), replica, out)

    def load_model(self, model: nn.Module, optimiser: Adam) -> None:
        """Load weights and optimiser state. Raises StoreError."""
        load_weights(self._part(0, 1), model)
        load_optimiser(self._part(0, 1), model, optimiser)

    def load_static(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Fill the arrays of the table. Raises StoreError."""
        load_static(self._part(0, 1), arrays)

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """Totals and held memory; after a change of grid, trainer 0 gets the totals of all former trainers."""
        num_trainers = GridShape.parse(self.grid).num_trainers
        if self.is_same_grid:
            return read_trainer(self._part(trainer, num_trainers), trainer)
        shares = range(num_trainers) if trainer == 0 else ()
        return sum((read_trainer(self._part(t, num_trainers), t)[0] for t in shares), np.zeros(2)), None

    def _part(self, index: int, count: int) -> Path:
        """The part with replica or trainer ``index`` of ``count``, which are distributed evenly over the nodes."""
        return self.manifest.part(index * len(self.manifest.checksums) // count)


@dataclass(frozen=True, kw_only=True)
class Regrowth(Resumption):
    """Continues with the weights and optimiser of a sweep's end on a longer stream, with empty memories."""

    def load_memory(self, replica: int, out: NDArray[np.float32]) -> None:
        """Leave the memory empty: the stored one is of other nodes."""

    def load_trainer(self, trainer: int) -> tuple[NDArray[np.float64], NDArray[np.float32] | None]:
        """No totals and no held memory."""
        return np.zeros(2), None


@dataclass(frozen=True, kw_only=True)
class Job:
    """What all ranks of a run know when training starts.

    graphs: source of the batches' graphs; None samples them. config: with the chosen grid and time unit.
    settings: as in config.json.
    """

    store: EventStore
    graphs: GraphSource | None
    config: TrainConfig
    settings: dict[str, Any]
    run: RunDirectory
    grid: Grid
    plan: RunPlan
    start: Start


def resumed_config(
    run: RunDirectory, given: Mapping[str, Any], remedy: str = "begin another run with --run"
) -> TrainConfig:
    """Settings of a resumed run: its own, changed by ``given`` where that does not affect earlier results.

    Raises ConfigError naming all other differences, or if the run began with another version of the sampling;
    ``remedy``: how to train nevertheless.
    """
    settings = run.read_config()
    version = settings.get("sampling_version", 1)  # the first version was not recorded
    if version != SAMPLING_VERSION:
        raise ConfigError(
            f"{run.path}: a resumed run must sample as it began, with version {version} of the sampling; this is "
            f"version {SAMPLING_VERSION}, whose negatives differ: resume it with the disttgl that began it, or {remedy}"
        )
    saved = saved_config(settings)
    if not given.get("time_unit"):  # the chosen unit is kept, even if later events would change the choice
        given = {**given, "time_unit": saved.time_unit}
    wanted = train_config(saved.as_dict(), given)
    differences = _differences(saved, wanted)
    if wanted.epochs < saved.epochs:
        differences.append(f"epochs {saved.epochs}, now {wanted.epochs} (can only be increased)")
    if differences:
        raise ConfigError(
            f"{run.path}: a resumed run keeps the settings that determine its result, these differ: "
            f"{', '.join(differences)}; omit them, or {remedy}"
        )
    return wanted


def _differences(saved: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Differing settings that determine the result."""
    return [
        f"{setting.name} {getattr(saved, setting.name)}, now {getattr(wanted, setting.name)}"
        for setting in fields(TrainConfig)
        if not setting.metadata["is_free"] and getattr(saved, setting.name) != getattr(wanted, setting.name)
    ]


def find_start(run: RunDirectory, config: TrainConfig, store: EventStore) -> Start:
    """The start of a resumed run: its newest whole checkpoint or, on another grid, the last sweep's end.

    Without a checkpoint the run starts from nothing. config: with the chosen grid and time unit. store: the
    events, possibly more than before; the run then also continues from the last sweep's end. Nothing is written
    or removed. Raises StoreError if there are checkpoints and all are damaged, or if the best sweep is not known or
    its checkpoint not whole.
    """
    saved, shape = run.read_config(), GridShape.parse(config.grid)
    check_same_static_memory(saved, static_settings(config), run.path, "train --resume RUN --static FILE")
    newest = newest_whole(run, shape.option)
    if newest is None:
        say = log.warning if run.records() else log.info
        say("%s has no checkpoint: the run starts from the beginning", run.path)
        return Start(grid=shape.option)
    is_longer = newest.attributes["settings"]["checksum"] != store.checksum
    if is_longer:
        _check_longer(newest, config, store)
        newest = newest_whole(run, None) or newest
    is_tested = any(record["record"] == "test" for record in run.records())
    found = newest.attributes
    written = saved_config(found["settings"])
    differences = _differences(written, config)
    if written.epochs > config.epochs:
        differences.append(f"epochs {written.epochs}, now {config.epochs}")
    if differences:
        raise StoreError(
            f"{newest.folder}: config.json has changed since ({', '.join(differences)}): restore it"
        )
    step, before = found["step"], Before(**found["before"])
    if is_longer:
        log.info(
            "continuing on a longer stream from the end of sweep %d (step %d). Kept: weights, optimiser. "
            "Not kept: the replicas' memory, the best validation, steps after that sweep's end",
            found["sweep"],
            step,
        )
        before = Before(epochs=found["epochs"], sweeps=found["sweep"], steps=step, same_events=False)
        return Regrowth(before=before, grid=shape.option, is_tested=is_tested, manifest=newest)
    is_same_grid = found["grid"] == shape.option
    best, is_recorded = best_before(run, newest, is_same_grid=is_same_grid)
    if is_same_grid:
        log.info("resuming from the checkpoint before step %d", step)
        return Resumption(
            step=step - before.steps,
            before=before,
            grid=shape.option,
            is_tested=is_tested,
            is_recorded=is_recorded,
            best=best,
            manifest=newest,
        )
    log.info(
        "resuming on %s from the end of sweep %d (step %d), trained on %s. Kept: weights, optimiser. Not kept: the "
        "replicas' memory and positions in the stream, unfinished passes, steps after that sweep's end",
        shape,
        found["sweep"],
        step,
        GridShape.parse(found["grid"]),
    )
    before = Before(epochs=found["epochs"], sweeps=found["sweep"], steps=step)
    return Resumption(
        before=before,
        grid=found["grid"],
        is_tested=is_tested,
        is_recorded=is_recorded,
        best=best,
        manifest=newest,
        is_same_grid=False,
    )


def check_step(start: Start, plan: RunPlan, run: RunDirectory) -> None:
    """Raise StoreError unless a start lies within the steps of its plan."""
    if start.step > plan.num_steps:
        raise StoreError(
            f"{run.path}: its checkpoint is of step {plan.before.steps + start.step}, the run has "
            f"{plan.before.steps + plan.num_steps} steps: restore config.json and the checkpoint"
        )


def _check_longer(newest: Manifest, config: TrainConfig, store: EventStore) -> None:
    """Raise StoreError unless ``store`` begins with a checkpoint's events; ConfigError with static memory."""
    saved = newest.attributes["settings"]
    try:
        find_prefix(store, saved["checksum"], Path(saved["events"]))
    except StoreError as error:
        raise StoreError(
            f"{newest.folder}: was written for other events than those of config.json: restore it, or use a store "
            f"that begins with them ({error})"
        ) from error
    if config.static:
        raise ConfigError(
            "a run with static memory cannot continue on a longer stream, since the memory belongs to the nodes and "
            "training events it was learned from: begin another run with --run"
        )
