r"""disttgl_hpc from Python: in a notebook's one process, or in a script under ``mpiexec``.

These names are available from the package, which imports this module on first use.

>>> import disttgl_hpc
>>> rows = [f"user{k % 5},page{k * k % 7},{k}" for k in range(200)]
>>> with open("visits.csv", "w") as file:
...     _ = file.write("\n".join(["src,dst,time", *rows]) + "\n")
>>> events = disttgl_hpc.prepare("visits.csv", "visits.events.h5", bipartite=True)
>>> events.stream.num_events, events.node_ids()[:2].tolist()
(200, ['user0', 'user1'])
>>> run = disttgl_hpc.train(events, {"epochs": 1, "dim_memory": 8, "evaluation_negatives": 3}, "runs/visits")
>>> sorted(run.metrics[-1]["test"])
['average_precision', 'hits_at_10', 'mrr', 'num_events', 'roc_auc']
>>> run.embed(["user1", "page2"], at=150).rows.shape
(2, 100)
>>> run.score(["user1", "user1"], ["page2", "page4"]).shape
(2,)
>>> best = run.recommend(["user1"], top=3)
>>> best.rank.tolist(), len(best.dst)
([1, 2, 3], 3)

An existing run is opened by its directory:

>>> run = disttgl_hpc.load_run("runs/visits")
>>> run.config.epochs
1

Under ``mpiexec`` all ranks call ``train`` with a communicator; one rank does the rest:

    from mpi4py import MPI

    run = disttgl_hpc.train("visits.events.h5", {"epochs": 5}, "runs/visits", comm=MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(run.metrics[-1]["test"]["mrr"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig, train_config
from disttgl_hpc.grid.collectives import alone
from disttgl_hpc.inference.answers import Pairs, recommended_columns, scored_pairs
from disttgl_hpc.inference.queries import embed, recommend
from disttgl_hpc.inference.trained_run import Trained, open_trained, refuse_unknown
from disttgl_hpc.inference.trained_run import update as run_update
from disttgl_hpc.ingest import prepare as preparing
from disttgl_hpc.ingest.columns import Columns, joined_names, parse_columns
from disttgl_hpc.ingest.prepare import prepare_frame
from disttgl_hpc.ingest.split import parse_split
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.resume import resumed_config
from disttgl_hpc.training.run_directory import RunDirectory, saved_config
from disttgl_hpc.training.train import train as run_training

__all__ = [
    "Embeddings",
    "EventStore",
    "Recommendations",
    "Run",
    "TrainConfig",
    "load_run",
    "prepare",
    "prepare_frame",
    "train",
]

AnyPath = str | PathLike[str]
Ids = Sequence[Any] | NDArray[Any]


def prepare(
    inputs: AnyPath | Sequence[AnyPath],
    output: AnyPath,
    *,
    columns: str | Columns | None = None,
    split: str | None = None,
    split_times: tuple[float, float] | None = None,
    log_features: str = "",
    **options: Any,
) -> EventStore:
    """Make an event store from raw files, as ``disttgl prepare`` does, and open it.

    columns, split, log_features: as on the command line, for example
    "src=user,dst=item,time=when,features=price", "0.70/0.15/0.15" and "price". options: other options of
    ``disttgl prepare`` by name, such as ``bipartite=True``. Raises InputError, ConfigError and StoreError.
    """
    if split is not None:
        options["split"] = parse_split(split)
    settings = preparing.PrepareSettings(
        inputs=_paths(inputs),
        output=Path(output),
        columns=parse_columns(columns) if isinstance(columns, str) else columns,
        split_times=split_times,
        log_features=joined_names(log_features),
        **options,
    )
    return preparing.prepare(settings)


def train(
    events: EventStore | AnyPath,
    config: TrainConfig | Mapping[str, Any] | None,
    run: AnyPath,
    comm: Any = None,
    *,
    resume: bool = False,
) -> Run:
    """Train on an event store with all ranks of ``comm``, an mpi4py communicator (collective).

    config: settings by their names in ``TrainConfig``; others have their defaults. comm: None trains in this
    process alone. resume: continue the run in the directory ``run`` from its last checkpoint; ``config`` may
    then change settings such as epochs. SIGTERM and Ctrl-C end training after a checkpoint, without an error;
    ``metrics`` then has no test record. Raises ConfigError, GridError, StoreError and TrainingError as the
    command does.
    """
    directory = RunDirectory(Path(run))
    given = config.as_dict() if isinstance(config, TrainConfig) else dict(config or {})
    settings = resumed_config(directory, given) if resume else train_config(given)
    store = events if isinstance(events, EventStore) else EventStore.open(Path(events))
    run_training(store, settings, directory, alone() if comm is None else comm, resume=resume)
    return Run(Path(run))


def load_run(path: AnyPath, events: AnyPath | None = None, static: AnyPath | None = None) -> Run:
    """The run in a directory. Raises StoreError if there is none.

    events: an event store that begins with the run's events; by default that of its last update, or its own.
    static: the static memory file, if it has moved.
    """
    run = Run(Path(path), *(None if file is None else Path(file) for file in (events, static)))
    run.directory.read_config()
    return run


@dataclass(frozen=True)
class Embeddings:
    """Embeddings ``rows`` (n, dim_embedding) float32 of the nodes ``ids`` (n,).

    kinds: (n,) "source" or "destination" in bipartite streams, otherwise None.
    """

    ids: NDArray[Any]
    kinds: NDArray[np.str_] | None
    rows: NDArray[np.float32]


@dataclass(frozen=True)
class Recommendations:
    """The best destinations of nodes, best first, as columns (m,) with your own ids.

    rank: from 1 for each src. probability: that the pair is an event rather than a random negative, as in
    training.
    """

    src: NDArray[Any]
    rank: NDArray[np.int64]
    dst: NDArray[Any]
    logit: NDArray[np.float32]
    probability: NDArray[np.float32]


class Run:
    """A trained run: its records, and queries to its best weights at any time.

    Answers depend only on the events strictly before the given time; without a time, on all events. The run's
    files are opened by the first query.
    """

    def __init__(self, path: Path, events: Path | None = None, static: Path | None = None) -> None:
        self.directory = RunDirectory(path)
        self._events, self._static = events, static

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """All records of metrics.jsonl: one per sweep, with loss and validation, and one of the test."""
        return self.directory.records()

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        return saved_config(self.directory.read_config())

    @cached_property
    def trained(self) -> Trained:
        """The model with its memory, for other uses. Raises StoreError."""
        return open_trained(self.directory, self._events, self._static)

    def embed(self, nodes: Ids | None = None, at: float | None = None, of: str | None = None) -> Embeddings:
        """Embeddings of ``nodes``, your ids, in their order, or of all nodes; as of the time ``at``.

        of: only "sources" or "destinations" of a bipartite stream; otherwise an id that names one of each
        yields both. Raises InputError for unknown ids.
        """
        trained = self.trained
        numbers, ids = trained.ids.nodes(nodes, of), trained.ids
        kinds = ids.kinds(numbers) if ids.is_bipartite else None
        return Embeddings(ids.all[numbers], kinds, embed(trained, numbers, trained.moment(at)))

    def score(
        self, src: Ids, dst: Ids, time: NDArray[Any] | Sequence[float] | None = None
    ) -> NDArray[np.float32]:
        """Logits (n,) of events between ``src`` (n,) and ``dst`` (n,), your ids, each at its ``time`` (n,).

        Raises InputError for unknown ids.
        """
        pairs = Pairs(np.asarray(src), np.asarray(dst), None if time is None else np.asarray(time))
        logits: NDArray[np.float32] = scored_pairs(self.trained, pairs, "score")["logit"]
        return logits

    def recommend(
        self,
        nodes: Ids | None = None,
        top: int = 10,
        at: float | None = None,
        *,
        exclude_seen: bool = False,
    ) -> Recommendations:
        """The ``top`` most likely destinations of ``nodes``, your ids; None: of all sources.

        exclude_seen: exclude destinations that the node has met. Raises InputError for unknown ids.
        """
        trained = self.trained
        values = trained.ids.all[: trained.ids.num_src or None] if nodes is None else nodes
        src = trained.ids.sources(values)
        refuse_unknown(values, src, "recommend", "check them")
        found = recommend(trained, src, top, trained.moment(at), exclude_seen=exclude_seen)
        return Recommendations(**recommended_columns(trained, found))

    def update(self, events: AnyPath | None = None) -> None:
        """Update the memory with new events, as ``disttgl update`` does, and store it in the run directory."""
        run_update(self.directory, self._events if events is None else Path(events), self._static)
        self._events = None
        self.__dict__.pop("trained", None)


def _paths(inputs: AnyPath | Sequence[AnyPath]) -> tuple[Path, ...]:
    """One path or several."""
    return (Path(inputs),) if isinstance(inputs, str | PathLike) else tuple(map(Path, inputs))
