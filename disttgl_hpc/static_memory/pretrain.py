"""Pre-training of static node memory (paper §3.1): learn a row for each node from the training split alone.

Two methods: ``embedding`` trains the model with an embedding table instead of the node memory; ``static-gnn``
trains LightGCN (:mod:`~.static_memory.lightgcn`).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from disttgl_hpc.config import CO_TRAINED, GIVEN, TrainConfig, train_config
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.events.stream import EventStream, Split
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.collectives import Communicator, barrier, bcast, decide_together
from disttgl_hpc.log import get_logger
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.static_memory.lightgcn import Learned, learn_static_gnn
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.files import check_output
from disttgl_hpc.store.node_rows import STATIC_KIND, StaticOrigin, write_static_store
from disttgl_hpc.training.checkpoints import load_static
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.train import train

log = get_logger(__name__)
METHODS = ("embedding", "static-gnn")

# Pre-training always predicts links, whatever the task of the run that uses its result.
_LINKS: dict[str, Any] = {
    "task": "link",
    "class_history": True,
    "class_features": False,
    "class_balance": 0.0,
}

# Settings that a method does not let the user choose.
FIXED: dict[str, dict[str, Any]] = {
    # An embedding table instead of the node memory, with the same attention.
    "embedding": {**_LINKS, "static": CO_TRAINED, "node_memory": False},
    "static-gnn": {**_LINKS, "static": "", "node_memory": False},
}

# Defaults of a method where they differ from those of training.
DEFAULTS: dict[str, dict[str, Any]] = {
    "embedding": {},
    "static-gnn": {"epochs": 30, "lr": 0.03, "local_batch": 6000, "static_decay": 1e-5},
}

_EVALUATION = ("evaluation_negatives", "evaluation_strategy", "evaluation_seed", "evaluation_events")

# Settings that change the result of a method or how it runs.
USED = {
    "embedding": tuple(field.name for field in fields(TrainConfig) if field.name not in FIXED["embedding"]),
    "static-gnn": (*DEFAULTS["static-gnn"], "dim_memory", "seed", *_EVALUATION, "threads", "timeout_s"),
}


def pretrain_config(method: str, given: Mapping[str, Any], file: Mapping[str, Any]) -> TrainConfig:
    """Return the settings of ``method``: its defaults, overridden by ``file``, then by ``given``.

    given: explicit settings; one that the method does not use raises ConfigError. file: settings of a whole
    run; the method takes those that it uses and that differ from the defaults of training, and logs those
    that it ignores.
    """
    train_config(file, given)  # checks names and values, also of unused settings
    used, fixed, plain = USED[method], FIXED[method], TrainConfig()
    refused = [name for name in given if name not in used and given[name] != fixed.get(name)]
    if refused:
        raise ConfigError(
            f"{', '.join(refused)}: no effect on pretrain --kind {method}, which {_does(method)}: leave it out"
        )
    said = {name: value for name, value in file.items() if value != getattr(plain, name)}
    unused = [f"{name} {value}" for name, value in said.items() if name not in used]
    if unused:
        log.info("%s %s; ignored: %s", method, _does(method), ", ".join(unused))
    taken = {name: value for name, value in said.items() if name in used}
    config = train_config(DEFAULTS[method], taken, given, fixed)
    if config.evaluation_strategy == GIVEN:
        log.info(
            "given negatives exist only for held-out events; pre-training validates with random negatives"
        )
        config = replace(config, evaluation_strategy="random")
    if method == "static-gnn":
        log.info("%s uses %s", method, ", ".join(f"{name} {getattr(config, name)}" for name in used))
    return config


def _does(method: str) -> str:
    """Say what the method does, to explain why some settings have no effect."""
    if method == "embedding":
        return "predicts links with an embedding table instead of the node memory, whatever the task"
    return f"uses only {', '.join(USED[method])}"


def pretrain(
    events: EventStore,
    output: Path,
    method: str,
    config: TrainConfig,
    world: Communicator,
    *,
    share: float,
    force: bool = False,
) -> Learned | None:
    """Learn a static memory by ``method`` with all ranks of ``world`` and write it to ``output``. Collective.

    config: from :func:`pretrain_config`. share: fraction of the training events to learn from; the others
    select the epoch. Events after the training split are checked for damage but not used. Returns None if a
    stop request came first; the same call then resumes. Raises ConfigError, also if ``output`` exists without
    ``force``, and GridError and StoreError as training does.
    """
    check_output(output, STATIC_KIND, force=force)
    decide_together(world, events.check_contents, config.timeout_s, "check the events")
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
        decide_together(
            world, lambda: write_static_store(output, rows, origin), config.timeout_s, f"write {output}"
        )
        if world.rank == 0:
            with suppress(OSError, StoreError):
                RunDirectory(_run_beside(output)).remove()
    return learned


def training_part(stream: EventStream, share: float) -> EventStream:
    """Return the training split as a stream: its first ``share`` for training, the rest halved into held-out parts.

    The T-CSR index is rebuilt, so it contains no later event. Raises ConfigError.
    """
    end = stream.split.train_end
    learned = round(end * share)
    if not 0 < learned <= end - 2:
        raise ConfigError(
            f"share must leave at least 1 event to learn from and 2 to select the epoch: {share:g} of {end:,} "
            f"training events is {learned:,}; try 0.9"
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
    """Train a model that has an embedding table and no node memory; return the table of its best epoch."""
    run = RunDirectory(_run_beside(output))
    is_begun = bcast(
        world, bool(run.whole_checkpoints), config.timeout_s, "the first rank to look for checkpoints"
    )
    if is_begun:
        run.check_idle()
        config = resumed_config(run, config.as_dict(), "remove this folder to start over")
        _check_share(run, events.stream)
    if not train(events, config, run, world, resume=is_begun):
        return None
    rows = np.empty((events.stream.num_nodes, config.dim_memory), np.float32)
    load_static(run.best_checkpoint, {"rows": rows})
    records = [record for record in run.records() if record["record"] == "sweep"]
    epochs = [{"loss": record["loss"], "mrr": record["validation"]["mrr"]} for record in records]
    # All ranks have read the run's files before rank 0 removes them.
    best_mrr = run.read_best().score
    barrier(world, config.timeout_s, "the other ranks to read the best checkpoint")
    return Learned(rows, {"epochs": epochs, "best_mrr": best_mrr})


def _check_share(run: RunDirectory, stream: EventStream) -> None:
    """Raise ConfigError unless the run was trained on exactly the training split of ``stream``."""
    learned, wanted = run.read_config().get("train_end"), stream.split.train_end
    if learned != wanted:
        raise ConfigError(
            f"{run.path}: cannot resume with another --share: trained on the first {learned} of "
            f"{stream.num_events} training events, now {wanted}; pass the --share that it was started with, or "
            "remove this folder to start over"
        )


def _run_beside(output: Path) -> Path:
    """Return the run directory that produces ``output``; it is removed once ``output`` is complete."""
    return output.with_name(f".{output.name}.run")
