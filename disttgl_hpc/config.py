"""Settings of a training run: one frozen dataclass for the command line, TOML files and run records."""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from disttgl_hpc.errors import ConfigError

_LARGEST = 2**31  # upper bound of integers; no array or loop of a run is longer
_WIDEST = 2**16
_MOST_DIGITS, _MOST_SHOWN = 30, 80
_MOST_THREADS = 2**10
TIME_ENCODINGS = ("learned", "log-learned", "fixed")
NEGATIVE_STRATEGIES = ("random", "historical", "inductive")
GIVEN = "given"
"""In place of an evaluation strategy: the negatives that came with the events."""
COMBS = ("most-recent", "mean")
TASKS = ("link", "edge", "link+edge", "node", "link+node")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
LR_SCALINGS = ("none", "linear", "sqrt")
CO_TRAINED = "co-trained"
"""In place of a file name: static memory that is trained together with the model."""


def _setting(
    default: Any,
    text: str,
    *,
    least: float | None = None,
    below: float | None = None,
    among: tuple[str, ...] = (),
    is_free: bool = False,
) -> Any:
    """Field with its help text and its allowed range, which validation and ``--help`` read.

    is_free: whether a resumed run may change it.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": text, "least": least, "below": below, "among": among, "is_free": is_free},
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run except its event store and the number of ranks."""

    epochs: int = _setting(
        10,
        "Passes over the training events; a grid trains whole sweeps of j·k passes.",
        least=1,
        is_free=True,
    )
    local_batch: int = _setting(600, "Events per trainer and step.", least=1)
    lr: float = _setting(1e-3, "Learning rate of Adam.", least=0.0)
    scale_lr: str = _setting(
        "none",
        "How the learning rate scales with the number of trainers (the paper: linear).",
        among=LR_SCALINGS,
    )
    grid: str = _setting(
        "",
        "Trainers as IxJxK (mini-batch x epoch x memory); auto: chosen as by disttgl plan.  If "
        "empty: 1x1x(trainers).",
        is_free=True,
    )
    dim_memory: int = _setting(100, "Width of the node memory.", least=1, below=_WIDEST)
    dim_time: int = _setting(100, "Width of the time encoding.", least=1, below=_WIDEST)
    dim_embedding: int = _setting(100, "Width of the node embeddings.", least=1, below=_WIDEST)
    num_heads: int = _setting(2, "Attention heads.", least=1, below=_WIDEST)
    num_neighbors: int = _setting(10, "Most recent events that a node attends to.", least=1, below=_WIDEST)
    dropout: float = _setting(0.1, "Dropout rate of the attention weights.", least=0.0, below=1.0)
    comb: str = _setting(
        "most-recent",
        "A node's mail: of its last event in a global batch, or the mean over all its events there (COMB).",
        among=COMBS,
    )
    node_memory: bool = _setting(
        True, "Use node memory; without it nodes have only features and static memory."
    )
    static: str = _setting(
        "",
        "Static node memory: a file made by disttgl pretrain, or co-trained for a table trained with "
        "the model.",
        is_free=True,
    )
    static_dropout: float = _setting(
        0.3, "Share of nodes whose static memory is dropped in a pass over a batch.", least=0.0, below=1.0
    )
    static_decay: float = _setting(0.0, "Weight decay of a co-trained table.", least=0.0)
    time_encoding: str = _setting(
        "log-learned", "Parametrisation of the time encoding's frequencies.", among=TIME_ENCODINGS
    )
    time_unit: float = _setting(
        0.0,
        "Stream time units per model time unit; 0: chosen from the time span of the training events.",
        least=0.0,
    )
    pair_features: bool = _setting(
        False, "Also score a pair by whether, when and how often it has met, and by common neighbours."
    )
    task: str = _setting(
        "link",
        "What to predict: links, classes of events (edge) or of their sources (node), or two of these.",
        among=TASKS,
    )
    class_history: bool = _setting(
        True,
        "In tasks with classes: include the classes of past events in mail, neighbours and class features.",
    )
    class_features: bool = _setting(
        False, "Use an event's own features to predict its class; they must be known before the event."
    )
    class_balance: float = _setting(
        0.0,
        "Exponent of the class weights, (1 / frequency)^x; 0: no weighting, 1: all classes weigh the same.",
        least=0.0,
    )
    negatives_per_event: int = _setting(
        1, "Negative destinations per training event.", least=1, below=_WIDEST
    )
    negative_sets: int = _setting(
        0,
        "Number of fixed negative sets, used in turn by the passes; 0: a new set for every pass.",
        least=0,
        below=_WIDEST,
    )
    negative_strategy: str = _setting("random", "Negatives for training.", among=NEGATIVE_STRATEGIES)
    seed: int = _setting(0, "Seed of weights, negatives and dropout.", least=0, below=2**63)
    evaluation_batch: int = _setting(
        600, "Events per evaluation batch, after which the memory is updated.", least=1
    )
    evaluation_negatives: int = _setting(
        49, "Negative destinations per evaluated event.", least=1, below=2**20
    )
    evaluation_strategy: str = _setting(
        "random", "Negatives for evaluation.", among=(*NEGATIVE_STRATEGIES, GIVEN)
    )
    evaluation_seed: int = _setting(0, "Seed of the evaluation negatives.", least=0, below=2**63)
    evaluation_events: int = _setting(
        0, "Score only the first N events of validation and test; 0: all.", least=0
    )
    prefetch: int = _setting(
        2,
        "Batches that a thread prepares in advance; 0: none.",
        least=0,
        below=_WIDEST,
        is_free=True,
    )
    precision: str = _setting(
        "float32", "Precision of matrix products; everything else is float32.", among=PRECISIONS
    )
    threads: int = _setting(1, "Threads per trainer.", least=1, below=_MOST_THREADS)
    device: str = _setting("cpu", "Device of the trainers.", among=DEVICES)
    timeout_s: float = _setting(
        1800.0, "Seconds after which waiting for another rank is an error.", least=1.0, is_free=True
    )
    checkpoint_steps: int = _setting(
        0, "Steps between checkpoints, in addition to those at sweep ends; 0: none.", least=0, is_free=True
    )
    checkpoint_minutes: float = _setting(
        10.0,
        "Minutes between checkpoints, in addition to those at sweep ends; 0: none.",
        least=0.0,
        is_free=True,
    )
    keep_checkpoints: int = _setting(
        2,
        "Checkpoints to keep, in addition to those of the best and of the last sweep.",
        least=1,
        is_free=True,
    )
    trace_steps: int = _setting(
        0, "Steps to record in the timeline trace.json; 0: none.", least=0, below=_WIDEST, is_free=True
    )
    trace_after: int = _setting(20, "Steps of the job before the timeline begins.", least=0, is_free=True)

    def __post_init__(self) -> None:
        """Raise ConfigError for values of the wrong type or out of range."""
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        if self.dim_embedding % self.num_heads:
            raise ConfigError(
                f"dim_embedding must be a multiple of num_heads, {self.num_heads}: got {self.dim_embedding}; "
                f"try {self.num_heads * max(1, self.dim_embedding // self.num_heads)}"
            )

    @property
    def predicts_links(self) -> bool:
        """Whether the task includes link prediction."""
        return "link" in self.task

    @property
    def class_kind(self) -> str:
        """What has classes to predict: "edge", "node", or "" for none."""
        return self.task.removeprefix("link").removeprefix("+")

    @property
    def drawn_negatives(self) -> int:
        """Negative destinations per training event; 0 if the task has no links."""
        return self.negatives_per_event if self.predicts_links else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as stored in config.json and checkpoints."""
        return dataclasses.asdict(self)


def _check(setting: dataclasses.Field[Any], value: Any) -> None:
    """Check type and range of one setting; integers are accepted for floats, nothing is converted."""
    wanted = type(setting.default)
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if not fits:
        raise ConfigError(f"{setting.name} must be {wanted.__name__}: got {_short(value)}")
    least, below, among = (setting.metadata[key] for key in ("least", "below", "among"))
    if wanted is float and not -sys.float_info.max <= value <= sys.float_info.max:
        raise ConfigError(
            f"{setting.name} must be finite: got {_short(value)}; the default is {setting.default:g}"
        )
    if wanted is int and below is None:
        below = _LARGEST
    if least is not None and not value >= least:
        raise ConfigError(f"{setting.name} must be at least {least:g}: got {_short(value)}")
    if below is not None and not value < below:
        raise ConfigError(f"{setting.name} must be below {_short(below)}: got {_short(value)}")
    if among and value not in among:
        raise ConfigError(f"{setting.name} must be one of {', '.join(among)}: got {_short(value)}")


def _short(value: Any) -> str:
    """A value as shown in an error message, shortened if necessary."""
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"a number of more than {_MOST_DIGITS} digits"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def train_config(*sources: Mapping[str, Any]) -> TrainConfig:
    """TrainConfig of several mappings; later ones override earlier ones.

    Raises ConfigError, naming the closest known setting, on an unknown name.
    """
    names = [setting.name for setting in dataclasses.fields(TrainConfig)]
    merged: dict[str, Any] = {}
    for source in sources:
        for key, value in source.items():
            if key not in names:
                close = difflib.get_close_matches(key, names, 1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(names)}"
                raise ConfigError(f"unknown setting {key!r}: {hint}")
            merged[key] = value
    return TrainConfig(**merged)


def setting_of(text: str) -> dict[str, Any]:
    """The setting in a text NAME=VALUE, converted to the setting's type, for :func:`train_config`.

    Raises ConfigError for other texts; name and value are checked by :func:`train_config`.
    """
    name, is_there, value = text.partition("=")
    name, value = name.strip().replace("-", "_"), value.strip()
    if not is_there or not name:
        raise ConfigError(f"{text!r} must be NAME=VALUE, as in epochs=5")
    defaults = {setting.name: setting.default for setting in dataclasses.fields(TrainConfig)}
    if name not in defaults or isinstance(defaults[name], str):
        return {name: value}
    try:
        return {name: tomllib.loads(f"value = {value}")["value"]}
    except ValueError:
        wanted = type(defaults[name]).__name__
        values = " (true or false)" if wanted == "bool" else ""
        raise ConfigError(f"{name} must be {wanted}{values}: got {_short(value)}") from None


def toml_text(config: TrainConfig, *, explained: bool = False) -> str:
    """Settings as the text of a TOML file; ``explained``: with the help text above each setting."""
    lines = []
    for setting in dataclasses.fields(TrainConfig):
        if explained:
            among = setting.metadata["among"]
            one_of = f" One of {', '.join(among)}." if among else ""
            lines.append(f"\n# {setting.metadata['help']}{one_of}")
        value = getattr(config, setting.name)
        # For these types TOML and JSON agree.
        lines.append(f"{setting.name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of a flat TOML file. Raises ConfigError naming the file and the reason."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{error}"
        raise ConfigError(
            f"{path}: cannot be read as TOML ({reason}): correct it, or omit --config"
        ) from error
