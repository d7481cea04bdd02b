"""Settings of a training run: one frozen dataclass shared by command line, TOML files and run records."""

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

_LARGEST = 2**31  # of whole numbers: no array nor loop of a run is longer
_WIDEST = 2**16
_MOST_DIGITS, _MOST_SHOWN = 30, 80
_MOST_THREADS = 2**10
TIME_ENCODINGS = ("learned", "log-learned", "fixed")
NEGATIVE_STRATEGIES = ("random", "historical", "inductive")
GIVEN = "given"
"""Instead of a strategy of evaluation: the negatives that came with the events."""
COMBS = ("most-recent", "mean")
TASKS = ("link", "edge", "link+edge", "node", "link+node")
DEVICES = ("cpu", "cuda")
PRECISIONS = ("float32", "bfloat16")
LR_SCALINGS = ("none", "linear", "sqrt")
CO_TRAINED = "co-trained"
"""Instead of a file's name: static memory that is learned along with the model."""


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

    is_free: a run that is resumed may change it.
    """
    return dataclasses.field(
        default=default,
        metadata={"help": text, "least": least, "below": below, "among": among, "is_free": is_free},
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that determines a run besides its event store and the number of ranks."""

    epochs: int = _setting(
        10,
        "Passes over the training events; a grid trains whole sweeps of j·k passes.",
        least=1,
        is_free=True,
    )
    local_batch: int = _setting(600, "Events a trainer works on in a step.", least=1)
    lr: float = _setting(1e-3, "Learning rate of Adam.", least=0.0)
    scale_lr: str = _setting(
        "none",
        "How the learning rate grows with the number of trainers (the paper: linear).",
        among=LR_SCALINGS,
    )
    grid: str = _setting(
        "",
        "Trainers as IxJxK (mini-batch x epoch x memory); auto: as disttgl plan; none: 1x1x(trainers).",
        is_free=True,
    )
    dim_memory: int = _setting(100, "Width of the node memory.", least=1, below=_WIDEST)
    dim_time: int = _setting(100, "Width of the time encoding.", least=1, below=_WIDEST)
    dim_embedding: int = _setting(100, "Width of the node embeddings.", least=1, below=_WIDEST)
    num_heads: int = _setting(2, "Attention heads.", least=1, below=_WIDEST)
    num_neighbors: int = _setting(10, "Most recent events a node attends to.", least=1, below=_WIDEST)
    dropout: float = _setting(0.1, "Dropout rate of the attention weights.", least=0.0, below=1.0)
    comb: str = _setting(
        "most-recent",
        "A node's mail: that of its last event in a global batch, or the mean over all of them.",
        among=COMBS,
    )
    node_memory: bool = _setting(
        True, "Whether nodes have a memory; without it they are what features and static memory say."
    )
    static: str = _setting(
        "",
        "Static node memory: a file of disttgl pretrain, or co-trained: a table that learns along.",
        is_free=True,
    )
    static_dropout: float = _setting(
        0.3, "Share of nodes that a pass over a batch sees without static memory.", least=0.0, below=1.0
    )
    static_decay: float = _setting(0.0, "Weight decay of the rows of a co-trained table.", least=0.0)
    time_encoding: str = _setting(
        "log-learned", "How the frequencies of the time encoding are held.", among=TIME_ENCODINGS
    )
    time_unit: float = _setting(
        0.0,
        "Units of the events' times in one of the model's; 0: as the span of the training events asks for.",
        least=0.0,
    )
    pair_features: bool = _setting(
        False, "Score a pair by whether, when and how often it met before, and by whom both know."
    )
    task: str = _setting(
        "link",
        "What is learned: links, classes of events (edge) or of their sources (node), or two together.",
        among=TASKS,
    )
    class_history: bool = _setting(
        True, "In tasks with classes: mail, neighbours and class head tell those of past events."
    )
    class_features: bool = _setting(
        False, "Tell an event's class from its own features too, which must be known before it."
    )
    class_balance: float = _setting(
        0.0,
        "How much more rare classes weigh: as (how rare)^this; 0: as they come, 1: all the same.",
        least=0.0,
    )
    negatives_per_event: int = _setting(
        1, "Negative destinations per training event.", least=1, below=_WIDEST
    )
    negative_sets: int = _setting(
        0,
        "Fixed negative sets that passes take in turn; 0: a fresh set for every pass.",
        least=0,
        below=_WIDEST,
    )
    negative_strategy: str = _setting("random", "Which negatives to train on.", among=NEGATIVE_STRATEGIES)
    seed: int = _setting(0, "Seed of weights, negatives and dropout.", least=0, below=2**63)
    evaluation_batch: int = _setting(600, "Events after which evaluation advances the memory.", least=1)
    evaluation_negatives: int = _setting(
        49, "Negative destinations an event is ranked against.", least=1, below=2**20
    )
    evaluation_strategy: str = _setting(
        "random", "Which negatives to rank among.", among=(*NEGATIVE_STRATEGIES, GIVEN)
    )
    evaluation_seed: int = _setting(0, "Seed of the evaluation negatives.", least=0, below=2**63)
    evaluation_events: int = _setting(
        0, "Score only the first so many events of each split; 0: all.", least=0
    )
    prefetch: int = _setting(
        2,
        "Batches that a thread prepares ahead of their use; 0: none.",
        least=0,
        below=_WIDEST,
        is_free=True,
    )
    precision: str = _setting("float32", "Of matrix products; everything else is float32.", among=PRECISIONS)
    threads: int = _setting(1, "Threads of each trainer.", least=1, below=_MOST_THREADS)
    device: str = _setting("cpu", "Where trainers compute.", among=DEVICES)
    timeout_s: float = _setting(
        1800.0, "Seconds after which a wait for another rank is an error.", least=1.0, is_free=True
    )
    checkpoint_steps: int = _setting(
        0, "Steps between checkpoints, beside those at sweep ends; 0: none.", least=0, is_free=True
    )
    checkpoint_minutes: float = _setting(
        10.0, "Minutes between checkpoints, beside those at sweep ends; 0: none.", least=0.0, is_free=True
    )
    keep_checkpoints: int = _setting(
        2, "Checkpoints to keep, beside the best and the last sweep's.", least=1, is_free=True
    )
    trace_steps: int = _setting(
        0, "Steps of which a timeline is kept, in trace.json; 0: none.", least=0, below=_WIDEST, is_free=True
    )
    trace_after: int = _setting(20, "Steps of a job before those of the timeline.", least=0, is_free=True)

    def __post_init__(self) -> None:
        """Refuse values of the wrong type or out of range; raises ConfigError."""
        for setting in dataclasses.fields(self):
            _check(setting, getattr(self, setting.name))
        if self.dim_embedding % self.num_heads:
            raise ConfigError(
                f"dim_embedding must be a multiple of num_heads: {self.dim_embedding} is not one of "
                f"{self.num_heads}; take {self.num_heads * max(1, self.dim_embedding // self.num_heads)}"
            )

    @property
    def predicts_links(self) -> bool:
        """Whether links are learned, alone or beside classes."""
        return "link" in self.task

    @property
    def class_kind(self) -> str:
        """Whose classes are learned: "edge", "node" or, where none are, ""."""
        return self.task.removeprefix("link").removeprefix("+")

    @property
    def drawn_negatives(self) -> int:
        """Negative destinations that a training event comes with: none where no links are learned."""
        return self.negatives_per_event if self.predicts_links else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as config.json and checkpoints keep them."""
        return dataclasses.asdict(self)


def _check(setting: dataclasses.Field[Any], value: Any) -> None:
    """Type and range of one setting; integers pass for floats, nothing else is converted."""
    wanted = type(setting.default)
    fits = type(value) is wanted or (wanted is float and type(value) is int)
    if not fits:
        raise ConfigError(f"{setting.name} must be {wanted.__name__}: got {_short(value)}")
    least, below, among = (setting.metadata[key] for key in ("least", "below", "among"))
    if wanted is float and not -sys.float_info.max <= value <= sys.float_info.max:
        raise ConfigError(
            f"{setting.name} must be finite: got {_short(value)}; leave it out for {setting.default:g}"
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
    """A value as an error shows it, however long it is."""
    if isinstance(value, int) and abs(value) >= 10**_MOST_DIGITS:
        return f"a number of more than {_MOST_DIGITS} digits"
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def train_config(*sources: Mapping[str, Any]) -> TrainConfig:
    """TrainConfig of several mappings, later ones winning.

    Raises ConfigError, with the near-miss, on an unknown name.
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
    """The setting in a text NAME=VALUE, of the type that the setting has, for :func:`train_config`.

    Raises ConfigError if it is nothing of the kind; whether name and value are allowed train_config tells.
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
        known = " (true or false)" if wanted == "bool" else ""
        raise ConfigError(f"{name} must be {wanted}{known}: got {_short(value)}") from None


def toml_text(config: TrainConfig, *, explained: bool = False) -> str:
    """Settings as a file that :func:`read_toml` takes; ``explained``: each below its help text."""
    lines = []
    for setting in dataclasses.fields(TrainConfig):
        if explained:
            among = setting.metadata["among"]
            one_of = f" One of {', '.join(among)}." if among else ""
            lines.append(f"\n# {setting.metadata['help']}{one_of}")
        value = getattr(config, setting.name)
        # TOML writes what JSON does, of such values.
        lines.append(f"{setting.name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines).lstrip("\n") + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """Settings of a TOML file, flat. Raises ConfigError naming the file and what is wrong with it."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{error}"
        raise ConfigError(
            f"{path}: cannot be read as TOML ({reason}): correct it, or leave --config out"
        ) from error
