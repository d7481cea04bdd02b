"""Answers of a trained run in the user's ids: files of embeddings, tables of scores and of recommendations.

Tables of results in csv and parquet, and the pairs of nodes that a user asks for.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError, InputError
from disttgl_hpc.events.tcsr import Times
from disttgl_hpc.inference.queries import Recommended, probability, score
from disttgl_hpc.inference.trained_run import Moment, Trained, refuse_unknown
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.raw_events import Origin, exact_numbers, node_column
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, read_text
from disttgl_hpc.store.files import replacing, telling_why
from disttgl_hpc.store.node_rows import write_embeddings

_CHUNK_ROWS = 1 << 20


@dataclass(frozen=True)
class Pairs:
    """Pairs of nodes in the user's ids, src and dst (n,) int64 or text, and times (n,), where the file has them."""

    src: NDArray[Any]
    dst: NDArray[Any]
    time: Times | None


def read_pairs(path: Path, columns: Columns) -> Pairs:
    """Pairs of a csv file with a header line, or of a parquet file; the column of times may be missing.

    Raises InputError naming file, row, rule and remedy.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file: check the path")
    try:
        table, origin = _read_parquet(path) if path.suffix in {".parquet", ".pq"} else _read_csv(path)
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}): give csv with a header line, or parquet"
        ) from None
    missing = [name for name in (columns.src, columns.dst) if name not in table.column_names]
    if missing:
        raise InputError(
            f"{path}, line 1: missing columns {', '.join(missing)}; there are {', '.join(table.column_names)}: "
            "name yours, --columns src=user,dst=item,time=when"
        )
    ends = [
        node_column(table, name, origin).to_numpy(zero_copy_only=False) for name in (columns.src, columns.dst)
    ]
    src, dst = (np.asarray(values, np.str_ if values.dtype == object else values.dtype) for values in ends)
    if columns.time not in table.column_names:
        return Pairs(src, dst, None)
    return Pairs(src, dst, exact_numbers(table[columns.time].combine_chunks(), columns.time, origin))


def _read_csv(path: Path) -> tuple[pa.Table, Origin]:
    header = first_line(path, 0)
    delimiter = "\t" if "\t" in header else ","
    row = next(csv.reader([header.lstrip("\ufeff")], delimiter=delimiter), [])
    names = tuple(name.strip() for name in row)
    layout = TextLayout(delimiter, names, header=True)
    kinds = dict.fromkeys(names, pa.string())
    chunks = list(read_text(path, layout, list(names), kinds, _CHUNK_ROWS))
    if not chunks:
        raise InputError(f"{path}: has no pairs, at least one is needed: check the file")
    return pa.concat_tables([table for table, _ in chunks]), chunks[0][1]


def _read_parquet(path: Path) -> tuple[pa.Table, Origin]:
    return pq.read_table(path), Origin(path, 0, lambda row: f"row {row + 1}")


def write_table(file: Path | IO[bytes], columns: Mapping[str, NDArray[Any]], kind: str) -> None:
    """Write columns of n rows as ``kind`` csv or parquet; a matrix (n, d) is a column of lists, in parquet only.

    Numbers that are none (NaN) are left empty.
    """
    table = pa.table({name: _column(values) for name, values in columns.items()})
    target = str(file) if isinstance(file, Path) else file
    if kind == "parquet":
        pq.write_table(table, target)
    else:
        pa_csv.write_csv(table, target, pa_csv.WriteOptions(quoting_header="none"))


def _column(values: NDArray[Any]) -> pa.Array:
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
    nothing = np.isnan(values) if values.dtype.kind == "f" else None
    return pa.array(values, mask=nothing)


AnswerColumns = dict[str, NDArray[Any]]
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


def node_columns(trained: Trained, nodes: NDArray[np.int64]) -> AnswerColumns:
    """The user's ids of ``nodes`` (n,), and in bipartite streams their kind, source or destination."""
    columns: AnswerColumns = {"id": trained.ids.all[nodes]}
    if trained.ids.is_bipartite:
        columns["kind"] = trained.ids.kinds(nodes)
    return columns


def write_embeddings_file(
    path: Path, columns: AnswerColumns, embeddings: NDArray[np.float32], origin: Mapping[str, Any]
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


def write_table_file(path: Path, columns: AnswerColumns) -> None:
    """Write a table as the kind that the name of ``path`` says. Raises StoreError."""
    kind = check_kind(path, TABLE_KINDS)
    with telling_why(path, _REMEDY), replacing(path) as partial:
        write_table(partial, columns, kind)


def scored_pairs(trained: Trained, pairs: Pairs, where: str, *, skip_unknown: bool = False) -> AnswerColumns:
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
    columns: AnswerColumns = (
        {"src": ids[src], "dst": ids[dst]} if known.all() else {"src": pairs.src, "dst": pairs.dst}
    )
    if pairs.time is not None:
        columns["time"] = pairs.time
    return {**columns, "logit": logits, "probability": probability(logits)}


def recommended_columns(trained: Trained, found: Recommended) -> AnswerColumns:
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
