"""Settings of pre-training: what each method fixes, what it learns with, and what it has no use for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from disttgl_hpc.config import CO_TRAINED, GIVEN, TrainConfig, train_config
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.log import get_logger

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
"""What a method learns with unless it is told otherwise, where that differs from training."""
_EVALUATION = ("evaluation_negatives", "evaluation_strategy", "evaluation_seed", "evaluation_events")
USED = {
    "embedding": tuple(field.name for field in fields(TrainConfig) if field.name not in FIXED["embedding"]),
    "static-gnn": (*DEFAULTS["static-gnn"], "dim_memory", "seed", *_EVALUATION, "threads", "timeout_s"),
}
"""The settings that a method's result or course depends on."""


def pretrain_config(method: str, given: Mapping[str, Any], file: Mapping[str, Any]) -> TrainConfig:
    """Settings that ``method`` learns with: its own defaults, changed by ``file``, then by ``given``.

    given: asked for one by one, so a setting that the method has no use for is refused. file: settings of a whole
    run; the method takes those that it uses and that are no defaults of training, and the log tells what it leaves.
    Raises ConfigError.
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
