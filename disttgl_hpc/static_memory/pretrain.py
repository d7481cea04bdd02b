"""Pre-training of static node memory (paper §3.1): learn a row for each node from the training split alone.

Settings of pre-training: what each method fixes, what it learns with, and what it has no use for.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from disttgl_hpc.config import CO_TRAINED, GIVEN, TrainConfig, train_config
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.collectives import decide_together
from disttgl_hpc.log import get_logger
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.static_memory.lightgcn import Learned, learn_static_gnn
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import STATIC_KIND, StaticOrigin, write_static_store
from disttgl_hpc.store.output import check_output
from disttgl_hpc.training.checkpoints import load_static
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.train import train

log = get_logger(__name__)
METHODS = ("embedding", "static-gnn")
_LINKS: dict[str, Any] = {
    "task": "link",
    "class_history": True,
    "class_features": False,
    "class_balance": 0.0,
}
FIXED: dict[str, dict[str, Any]] = {
    # A table instead of the node memory, with the same attention.
    "embedding": {**_LINKS, "static": CO_TRAINED, "node_memory": False},
    "static-gnn": {**_LINKS, "static": "", "node_memory": False},
}
"""What is the same whatever is asked for: pre-training predicts links, also for a run with another task."""


DEFAULTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "static-gnn": {"epochs": 30, "lr": 0.03, "local_batch": 6000, "static_decay": 1e-5},
}
"""Defaults of a method that differ from those of training."""


_EVALUATION = ("evaluation_negatives", "evaluation_strategy", "evaluation_seed", "evaluation_events")
USED = {
    "embedding": tuple(field.name for field in fields(TrainConfig) if field.name not in FIXED["embedding"]),
    "static-gnn": (*DEFAULTS["static-gnn"], "dim_memory", "seed", *_EVALUATION, "threads", "timeout_s"),
}
"""The settings that a method's result or course depends on."""


def pretrain_config(method: str, given: Mapping[str, Any], file: Mapping[str, Any]) -> TrainConfig:
    """Settings that ``method`` learns with: its own defaults, changed by ``file``, then by ``given``.

    given: asked for one by one, so a setting that the method has no use for is refused. file: settings of a
    whole run; the method uses those that it supports and that differ from training's defaults, and logs what
    it ignores. Raises ConfigError.
    """
    train_config(file, given)  # names and values, also of what is not used
    used, fixed, plain = USED[method], FIXED[method], TrainConfig()
    refused = [name for name in given if name not in used and given[name] != fixed.get(name)]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)}: without effect on pretrain --kind {method}, which {_does(method)}: leave it out"
        )
    said = {name: value for name, value in file.items() if value != getattr(plain, name)}
    unused = [f"{name} {value}" for name, value in said.items() if name not in used]
    if unused:
        log.info("%s %s; not used are %s", method, _does(method), ", ".join(unused))
    taken = {name: value for name, value in said.items() if name in used}
    config = train_config(DEFAULTS[method], taken, given, fixed)
    if config.evaluation_strategy == GIVEN:
        log.info("the given negatives are of held-out events: training events are ranked among random ones")
        config = replace(config, evaluation_strategy="random")
    if method == "static-gnn":
        log.info("%s learns with %s", method, ", ".join(f"{name} {getattr(config, name)}" for name in used))
    return config


def _does(method: str) -> str:
    """Why some settings have no effect."""
    if method == "embedding":
        return "predicts links with a table in place of the node memory, whatever the task"
    return f"learns with {', '.join(USED[method])} alone"


def pretrain(
    events: EventStore,
    output: Path,
    method: str,
    config: TrainConfig,
    world: Any,
    *,
    share: float,
    force: bool = False,
) -> Learned | None:
    """Learn a static memory by ``method`` with all ranks of ``world`` and write it to ``output`` (collective).

    config: of :func:`~.runs.pretrain_settings.pretrain_config`. share: of the training events to learn from;
    the rest of them chooses the epoch. What follows the training split is checked for damage and not used.
    Returns the result, or None if asked to stop: repeat the command to continue. Raises ConfigError, also
    where ``output`` must not be replaced, GridError and StoreError as training does.
    """
    check_output(output, STATIC_KIND, force=force)
    decide_together(world, events.check_contents)
    stream = training_part(events.stream, share)
    learned: Learned | None
    if method == "embedding":
        learned = _learn_embedding(replace(events, stream=stream), config, output, world)
    else:
        prepare_process(config.threads)
        learned = learn_static_gnn(stream, config, world)
    if learned is not None:
        origin = StaticOrigin(
            method=method,
            events=events.checksum,
            name=stream.name,
            train_end=stream.num_events,
            learned_end=stream.split.train_end,
            settings=config.as_dict(),
            report=learned.report,
        )
        rows = learned.rows
        decide_together(world, lambda: write_static_store(output, rows, origin))
        if world.rank == 0:
            shutil.rmtree(_run_beside(output), ignore_errors=True)
    return learned


def training_part(stream: EventStream, share: float) -> EventStream:
    """The training split as a stream of its own: its first ``share`` to learn from, the rest held out in halves.

    Its index is rebuilt, without any later event. Raises ConfigError.
    """
    end = stream.split.train_end
    learned = round(end * share)
    if not 0 < learned <= end - 2:
        raise ConfigError(
            f"share must leave events to learn from and two to choose by, of {end:,} training events {share:g} "
            f"are {learned:,}: take one of 0.9"
        )
    src, dst, time = stream.src[:end], stream.dst[:end], stream.time[:end]
    features, labels, classes = stream.edge_features, stream.edge_labels, stream.edge_classes
    return replace(
        stream,
        src=src,
        dst=dst,
        time=time,
        tcsr=build_tcsr(src, dst, time, stream.num_nodes),
        edge_features=None if features is None else features[:end],
        edge_labels=None if labels is None else labels[:end],
        validation_negatives=None,
        test_negatives=None,
        edge_classes=None if classes is None else classes[:end],
        split=Split(learned, (learned + end + 1) // 2),
    )


def _learn_embedding(events: EventStore, config: TrainConfig, output: Path, world: Any) -> Learned | None:
    """Train a model without node memory whose table learns along; its best epoch's table is what was learned."""
    run = RunDirectory(_run_beside(output))
    is_begun = world.bcast(bool(run.whole_checkpoints))
    if is_begun:
        config = resumed_config(run, config.as_dict(), "remove this folder to start again")
        _check_share(run, events.stream)
    if not train(events, config, run, world, resume=is_begun):
        return None
    rows = np.empty((events.stream.num_nodes, config.dim_memory), np.float32)
    load_static(run.best_checkpoint, {"rows": rows})
    records = [record for record in run.records() if record["record"] == "sweep"]
    epochs = [{"loss": record["loss"], "mrr": record["validation"]["mrr"]} for record in records]
    world.barrier()  # before the run's files are removed
    return Learned(rows, {"epochs": epochs, "best_mrr": run.read_best()["score"]})


def _check_share(run: RunDirectory, stream: EventStream) -> None:
    """Raise ConfigError unless the run has learned from just the training split of ``stream``."""
    learned, wanted = run.read_config().get("train_end"), stream.split.train_end
    if learned != wanted:
        raise ConfigError(
            f"{run.path}: has learned from the first {learned} of {stream.num_events} training events, now "
            f"it would be {wanted}; what is held out must not have been learned from: give the --share that it was "
            "begun with, or remove this folder to start again"
        )


def _run_beside(output: Path) -> Path:
    """Where the run lies that learns ``output``; it is removed when that is complete."""
    return output.with_name(f".{output.name}.run")
