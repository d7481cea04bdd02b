"""Answers of a trained run in the user's ids: files of embeddings, tables of scores and of recommendations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.inference.answer_tables import Pairs, write_table
from disttgl_hpc.inference.node_ids import refuse_unknown
from disttgl_hpc.inference.queries import Recommended, probability, score
from disttgl_hpc.inference.trained_run import Moment, Trained
from disttgl_hpc.store.embeddings import write_embeddings
from disttgl_hpc.store.files import replacing, telling_why

Columns = dict[str, NDArray[Any]]
EMBEDDING_KINDS = ("h5", "parquet", "npy")
TABLE_KINDS = ("csv", "parquet")
_REMEDY = "make room there, or choose another place"


def check_kind(path: Path, kinds: tuple[str, ...]) -> str:
    """The kind of file that a name stands for, by its suffix. Raises ConfigError; also without its folder."""
    kind = path.suffix.removeprefix(".")
    if kind not in kinds:
        raise ConfigError(f"{path}: the name must end in one of {', '.join(f'.{one}' for one in kinds)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder: create it first")
    return kind


def node_columns(trained: Trained, nodes: NDArray[np.int64]) -> Columns:
    """The user's ids of ``nodes`` (n,), and in bipartite streams their kind, source or destination."""
    columns: Columns = {"id": trained.ids.all[nodes]}
    if trained.ids.is_bipartite:
        columns["kind"] = trained.ids.kinds(nodes)
    return columns


def write_embeddings_file(
    path: Path, columns: Columns, embeddings: NDArray[np.float32], origin: Mapping[str, Any]
) -> None:
    """Write embeddings (n, dim) of the nodes in ``columns`` as the kind that the name of ``path`` says.

    A .npy file holds the matrix alone: its rows are named in NAME.ids.csv beside it. Raises StoreError.
    """
    kind = check_kind(path, EMBEDDING_KINDS)
    if kind == "h5":
        write_embeddings(path, {**columns, "embedding": embeddings}, origin)
    elif kind == "parquet":
        write_table_file(path, {**columns, "embedding": embeddings})
    else:
        with telling_why(path, _REMEDY), replacing(path) as partial, partial.open("wb") as file:
            np.save(file, embeddings, allow_pickle=False)
        write_table_file(path.with_suffix(".ids.csv"), columns)


def write_table_file(path: Path, columns: Columns) -> None:
    """Write a table as the kind that the name of ``path`` says. Raises StoreError."""
    kind = check_kind(path, TABLE_KINDS)
    with telling_why(path, _REMEDY), replacing(path) as partial:
        write_table(partial, columns, kind)


def scored_pairs(trained: Trained, pairs: Pairs, where: str, *, skip_unknown: bool = False) -> Columns:
    """Pairs with logit and probability, in their order. Raises InputError for ids that the events do not have.

    skip_unknown: leave the scores of such pairs empty (NaN) instead. where: what the pairs come from.
    """
    src, dst = trained.ids.sources(pairs.src), trained.ids.targets(pairs.dst)
    if not skip_unknown:
        remedy = "append the events that bring them, or --skip-unknown leaves their scores empty"
        for values, numbers in ((pairs.src, src), (pairs.dst, dst)):
            refuse_unknown(values, numbers, where, remedy)
    known = (src >= 0) & (dst >= 0)
    ids = trained.ids.all
    logits = np.full(len(src), np.nan, np.float32)
    logits[known] = score(trained, src[known], dst[known], None if pairs.time is None else pairs.time[known])
    columns: Columns = (
        {"src": ids[src], "dst": ids[dst]} if known.all() else {"src": pairs.src, "dst": pairs.dst}
    )
    if pairs.time is not None:
        columns["time"] = pairs.time
    return {**columns, "logit": logits, "probability": probability(logits)}


def recommended_columns(trained: Trained, found: Recommended) -> Columns:
    """Recommendations in the user's ids."""
    return {
        "src": trained.ids.all[found.src],
        "rank": found.rank,
        "dst": trained.ids.all[found.dst],
        "logit": found.logit,
        "probability": probability(found.logit),
    }


def origin_of(trained: Trained, run: Path, moment: Moment) -> dict[str, Any]:
    """Where an answer is from, as plain values."""
    return {"run": str(run.resolve()), **trained.origin, "time": moment.time, "num_events": moment.position}
