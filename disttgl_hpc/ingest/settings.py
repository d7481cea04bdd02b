"""What ``disttgl prepare`` is asked for, checked before anything is read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path

from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.formats import format_of
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.event_writer import KIND
from disttgl_hpc.store.output import check_output, stem

SHARES = Fraction("0.70"), Fraction("0.15"), Fraction("0.15")


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """What ``disttgl prepare`` is asked for; see its help for each.

    name: of the stream; empty for the output's own. split: shares of training, validation and test; None for the
    input's own, or SHARES where it has none. split_times: begin of validation and of test; if given it wins over
    ``split``. node_features: a ``.npy`` file, row r of which belongs to the node with id r. chunk_events: events
    held in memory at a time. before: a store whose events come first, see :mod:`~.append`; with ``keep_split``
    training and validation end where they end in that. log_features: columns of edge features, by name or number,
    or ``("all",)``, of which the logarithm is stored.
    """

    inputs: tuple[Path, ...]
    output: Path
    name: str = ""
    format: str | None = None
    columns: Columns | None = None
    bipartite: bool = False
    split: tuple[Fraction, Fraction, Fraction] | None = None
    split_times: tuple[float, float] | None = None
    node_features: Path | None = None
    label_by_file: bool = False
    feature_dtype: str = "float32"
    log_features: tuple[str, ...] = ()
    force: bool = False
    chunk_events: int = 1_000_000
    before: EventStore | None = None
    keep_split: bool = False

    def __post_init__(self) -> None:
        check_output(self.output, KIND, force=self.force, inputs=self.inputs)
        if self.split is not None and (sum(self.split) != 1 or min(self.split) < 0):
            shares = "/".join(str(float(share)) for share in self.split)
            raise ConfigError(
                f"--split must be three shares that add up to 1, found {shares}: try 0.70/0.15/0.15"
            )
        if self.split_times is not None and not self.split_times[0] <= self.split_times[1]:
            raise ConfigError(f"--split-times must ascend, found {self.split_times}: swap them")
        if self.chunk_events < 1:
            raise ConfigError(f"--chunk-events must be at least 1, found {self.chunk_events}: leave it out")
        if self.label_by_file and self.columns is not None and (self.columns.label or self.columns.labels):
            raise ConfigError(
                "the class is either a column or the file: leave out label=, labels= or --label-by-file"
            )
        stems = [stem(path) for path in self.inputs]
        if self.label_by_file and len(set(stems)) != len(stems):
            raise ConfigError(
                f"--label-by-file needs files of different names, found {', '.join(stems)}: rename"
            )

    @property
    def read_as(self) -> str:
        """How the input is read, JSON, for more of it to be read alike."""
        columns = None if self.columns is None else asdict(self.columns)
        name = self.input_format if self.inputs else None
        return json.dumps(
            {
                "format": name,
                "columns": columns,
                "label_by_file": self.label_by_file,
                "log_features": self.log_features,
            }
        )

    @property
    def input_format(self) -> str:
        """The one format of all inputs."""
        formats = {self.format or format_of(path) for path in self.inputs}
        if len(formats) > 1:
            raise InputError(
                f"all inputs must have one format, found {', '.join(sorted(formats))}: add --format"
            )
        return formats.pop()


def parse_split(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """Three exact shares from ``0.70/0.15/0.15``. Raises ConfigError for anything else."""
    try:
        training, validation, test = (Fraction(share) for share in text.split("/"))
    except (ValueError, ZeroDivisionError):
        raise ConfigError(f"--split must be three shares, found '{text}': try 0.70/0.15/0.15") from None
    return training, validation, test


def parse_split_times(text: str) -> tuple[float, float]:
    """Two times from ``T1,T2``, integers kept exact. Raises ConfigError for anything else."""
    try:
        first, second = (int(time) if time.strip().isdecimal() else float(time) for time in text.split(","))
    except ValueError:
        raise ConfigError(f"--split-times must be two numbers T1,T2, found '{text}': leave it out") from None
    return first, second
