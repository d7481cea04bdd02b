"""What a run is to learn of its events beside links: classes of events, or of their sources.

``with_task`` adds these targets to the events; ``static_settings`` describes the static memory of the run.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.evaluation.candidates import check_negatives
from disttgl_hpc.events.stream import EventStream, Targets, check_split
from disttgl_hpc.sampling.class_features import class_codes
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import StaticStore, with_static_memory

MAX_CLASSES = 1 << 16
"""Most classes of a task: the logits of a batch of 600 events then take 150 MiB."""
_SAMPLED_ROWS = 1 << 10
_LARGEST_FEATURE = 1e18  # products of two larger ones exceed float32
_NAMES = {"edge": "events", "node": "nodes"}
_REMEDIES = {
    "edge": "prepare it again with --columns …,label=NAME, …,labels=A+B+C or --label-by-file",
    "node": "prepare it again with --columns …,node_label=NAME or --format jodie",
}


def with_inputs(events: EventStore, config: TrainConfig) -> EventStore:
    """The events with all that training needs of them: classes of the task and static memory.

    Raises ConfigError or StoreError if the settings do not fit the events.
    """
    check_negatives(events.stream, config)
    check_split(events.stream)
    check_features(events.stream)
    return with_static_memory(with_task(events, config), config)


def with_task(events: EventStore, config: TrainConfig) -> EventStore:
    """The events with the classes that ``config.task`` asks for, and with those of the past as features.

    Tables of events stay where they are, mapped, since all processes of a job call this. Raises ConfigError if the
    classes are not there, are too many or have no name, or if an option has nothing to work on.
    """
    stream, kind = events.stream, config.class_kind
    if config.class_features and (not kind or stream.edge_features is None):
        found = "the task has no classes" if not kind else "the events have no features"
        raise ConfigError(f"class_features needs a task with classes and features of events: {found}")
    if not kind:
        return events
    values, num_classes = _classes(events, kind)
    targets = Targets(
        values,
        num_classes,
        of_pair=kind == "edge",
        known=stream.edge_features if config.class_features else None,
        known_scale=stream.edge_scale if config.class_features else None,
        codes=class_codes(num_classes) if config.class_history else None,
    )
    weights = class_weights(targets, stream.split.train_end, config.class_balance)
    return replace(events, stream=replace(stream, targets=replace(targets, weights=weights)))


def class_weights(targets: Targets, train_end: int, balance: float) -> NDArray[np.float32] | None:
    """Weights (C,) of classes in the loss by how rare they are in training; None where all weigh 1.

    One class an event: (share of the class)^−balance, scaled so that the mean over the training events is 1.
    Several: (share without / share with)^balance for an event that has the class. A class that training does
    not have weighs 1.
    """
    if not balance:
        return None
    values = targets.values[:train_end]
    if targets.is_multi_label:
        shares = values.mean(axis=0)
        odds = np.divide(1 - shares, shares, out=np.ones(len(shares)), where=(shares > 0) & (shares < 1))
        return np.asarray(odds**balance, np.float32)
    values = values[values >= 0]
    shares = np.bincount(values, minlength=targets.num_classes) / max(1, len(values))
    weights = np.power(shares, -balance, out=np.ones(len(shares)), where=shares > 0)
    scale = (shares * weights).sum()
    return np.where(shares > 0, weights / scale, 1).astype(np.float32)


def check_features(stream: EventStream) -> None:
    """Raise ConfigError if products of features overflow float32, judged by a sample of events and nodes."""
    tables = ("edge", stream.edge_features, stream.edge_scale), ("node", stream.node_features, None)
    for kind, table, scale in tables:
        if table is None or not table.size:
            continue
        column, largest = largest_feature(table[:: -(-len(table) // _SAMPLED_ROWS)], scale)
        if not largest < _LARGEST_FEATURE:
            raise ConfigError(
                f"{kind} features must be below {_LARGEST_FEATURE:g}, and should be about −1…1: column {column} "
                f"reaches {largest:.3g}: scale it, or take its logarithm (--log-features), and prepare again"
            )


def largest_feature(
    rows: NDArray[np.floating] | NDArray[np.int8], scale: NDArray[np.float32] | None
) -> tuple[int, float]:
    """The column with the largest absolute value in ``rows`` (n, dim), n and dim > 0, and that value."""
    largest = np.abs(rows.astype(np.float64)).max(axis=0) * (1 if scale is None else scale)
    column = int(np.argmax(largest))
    return column, float(largest[column])


def check_batches_fit(config: TrainConfig) -> None:
    """Raise ConfigError unless training on ``config``'s task can read a batch store, which has negatives."""
    if not config.predicts_links:
        raise ConfigError(
            f"--task {config.task} draws no negatives and no batch store is of its batches: leave --batches out"
        )


def _classes(events: EventStore, kind: str) -> tuple[NDArray[np.int64] | NDArray[np.uint8], int]:
    """Classes of the events (E,) or (E, C) and their number. Raises ConfigError without any."""
    stream, names = events.stream, len(events.class_names)
    if kind == "edge" and stream.edge_classes is not None:
        return stream.edge_classes, _predictable(events, stream.edge_classes.shape[1])
    labels = stream.edge_labels if kind == "edge" else events.node_labels
    if labels is None:
        raise ConfigError(f"{events.path}: holds no classes of {_NAMES[kind]}: {_REMEDIES[kind]}")
    largest = int(labels.max())
    if labels[: stream.split.train_end].max() < 0:
        raise ConfigError(f"{events.path}: no training event has a label: {_REMEDIES[kind]}")
    # Whatever is negative is unknown; a node has a state, or it has not.
    high = 1 if kind == "node" else largest
    if labels.min() < -1 or largest > high:
        labels = np.clip(labels, -1, high)
    if kind == "node":
        return labels, 2
    if 0 < names <= largest:
        event = int(np.argmax(labels >= names))
        raise ConfigError(
            f"{events.path}: a class must be one of the {names:,} classes that have a name, from 0 to {names - 1:,}, "
            f"but event {event} has class {labels[event]}: {_REMEDIES[kind]}"
        )
    return labels, _predictable(events, max(names, largest + 1))


def _predictable(events: EventStore, num_classes: int) -> int:
    """``num_classes``, if a model can predict so many. Raises ConfigError."""
    if num_classes > MAX_CLASSES:
        raise ConfigError(
            f"{events.path}: a model predicts at most {MAX_CLASSES:,} classes, since it scores all of them for every "
            f"event; the labels have {num_classes:,}: merge rare classes, or choose another label, and prepare again"
        )
    return num_classes


def static_settings(config: TrainConfig) -> dict[str, Any]:
    """What config.json says of a run's static memory: the file, and what it is: "", co-trained or its checksum."""
    if config.static in {"", CO_TRAINED}:
        return {"static": config.static, "static_memory": config.static}
    static, checksum = os.path.realpath(config.static), StaticStore.open(Path(config.static)).checksum
    return {"static": static, "static_memory": checksum}


def check_same_static_memory(saved: dict[str, Any], wanted: dict[str, Any], where: Path, option: str) -> None:
    """Raise StoreError unless the settings of a run and of its continuation have the same static memory.

    option: says where a table lies that has moved.
    """
    theirs, ours = (str(settings.get("static_memory", "")) for settings in (saved, wanted))
    if theirs != ours:
        raise StoreError(
            f"{where}: was trained with {_described(theirs)}, here is {_described(ours)}: give the original "
            f"({option}), or begin another run"
        )


def _described(static_memory: str) -> str:
    if static_memory in {"", CO_TRAINED}:
        return f"{static_memory or 'no'} static memory"
    return f"a static memory of checksum {static_memory[:16]}…"
