"""Input and output of inference in the user's ids.

Reads pairs of nodes from csv or parquet; writes embeddings, scores and recommendations.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
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
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, header_names, read_text
from disttgl_hpc.log import get_logger
from disttgl_hpc.store.files import check_is_file, replacing, write_errors
from disttgl_hpc.store.node_rows import write_embeddings

log = get_logger(__name__)

_PARQUET = (".parquet", ".pq")
_CHUNK_ROWS = 1 << 20
_REMEDY = "free disk space or choose another folder"
EMBEDDING_KINDS = ("h5", "parquet", "npy")
TABLE_KINDS = ("csv", "parquet")

AnswerColumns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Pairs:
    """Pairs of nodes in the user's ids, src and dst (n,) int64 or text, and times (n,) if the file has them."""

    src: NDArray[Any]
    dst: NDArray[Any]
    time: Times | None


NODES_HELP = (
    "Ids a,b,c, or a file of ids: its name must end in .txt, .csv, .tsv or .parquet, or be written as @FILE. A file "
    "has one id per line, or a header with a column id."
)
_ID_FILES = (".txt", ".csv", ".tsv", *_PARQUET)
_ID, _ID_REMEDY = "id", "name the column of ids 'id'"


def read_ids(text: str) -> list[Any]:
    """Read ids from ``a,b,c`` or from a file, as NODES_HELP says. Raises InputError if there are none.

    A name without a known ending is an id, so that a file called 7 does not replace the id 7.
    """
    path = Path(text.removeprefix("@"))
    # os.path, because Path raises an error for a text that is too long for a file name.
    if os.path.exists(path) and (text.startswith("@") or path.suffix.lower() in _ID_FILES):
        ids = _ids_of_file(path)
    else:
        ids = [word.strip() for word in text.split(",") if word.strip()]
        if os.path.isfile(text):
            log.warning(
                "--nodes %s is read as an id; for the ids in the file of that name: --nodes @%s", text, text
            )
    if not ids:
        raise InputError(f"--nodes must contain at least one id, found '{text}': leave it out for all nodes")
    return ids


def _ids_of_file(path: Path) -> list[Any]:
    """Ids in a file: the column "id" of a table, or one per line. Raises InputError."""
    check_is_file(path)
    try:
        if path.suffix.lower() in _PARQUET:
            table, origin = _read_parquet(path)
            _require_once(path, table.column_names, [_ID], _ID_REMEDY)
            return list(node_column(table, _ID, origin).to_pylist())
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        delimiter = "\t" if lines and "\t" in lines[0] else ","
        rows = [next(csv.reader([line], delimiter=delimiter)) for line in lines]
    except (OSError, ValueError, csv.Error, pa.ArrowException) as error:
        raise InputError(
            f"{path}: cannot read ids ({error}): pass UTF-8 text with one id per line, or a table with a column id"
        ) from error
    if rows and _ID in rows[0]:
        _require_once(path, rows[0], [_ID], _ID_REMEDY)
        return [dict(zip(rows[0], row, strict=False)).get(_ID, "") for row in rows[1:]]
    return [row[0] if len(row) == 1 else line for row, line in zip(rows, lines, strict=True)]


def read_pairs(path: Path, columns: Columns) -> Pairs:
    """Read pairs from a csv file with a header line or a parquet file; the time column is optional.

    Raises InputError.
    """
    check_is_file(path)
    try:
        table, origin = _read_parquet(path) if path.suffix.lower() in _PARQUET else _read_csv(path, columns)
    except (pa.ArrowInvalid, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}): pass csv with a header line, or parquet"
        ) from None
    _require_pairs(path, table.column_names, columns)
    ends = [
        node_column(table, name, origin).to_numpy(zero_copy_only=False) for name in (columns.src, columns.dst)
    ]
    src, dst = (np.asarray(values, np.str_ if values.dtype == object else values.dtype) for values in ends)
    if columns.time not in table.column_names:
        return Pairs(src, dst, None)
    return Pairs(src, dst, exact_numbers(table[columns.time].combine_chunks(), columns.time, origin))


def _require_pairs(path: Path, names: Sequence[str], columns: Columns) -> None:
    """Raise InputError unless the columns of pairs are among ``names`` once each, that of times at most once."""
    wanted = [columns.src, columns.dst, *({columns.time} & set(names))]
    _require_once(path, names, wanted, "name the columns with --columns src=user,dst=item,time=when")


def _require_once(path: Path, names: Sequence[str], wanted: Sequence[str], remedy: str) -> None:
    """Raise InputError with ``remedy`` unless each wanted column is among ``names`` once."""
    for rule, wrong in (
        ("missing columns", [name for name in wanted if name not in names]),
        ("columns that occur twice:", [name for name in wanted if names.count(name) > 1]),
    ):
        if wrong:
            raise InputError(f"{path}, line 1: {rule} {', '.join(wrong)}; found {', '.join(names)}: {remedy}")


def _read_csv(path: Path, columns: Columns) -> tuple[pa.Table, Origin]:
    header = first_line(path, 0)
    delimiter = "\t" if "\t" in header else ","
    names = header_names(path, delimiter)
    _require_pairs(path, names, columns)
    layout = TextLayout(delimiter, names, header=True)
    wanted = [name for name in dict.fromkeys((columns.src, columns.dst, columns.time)) if name in names]
    chunks = list(read_text(path, layout, wanted, dict.fromkeys(wanted, pa.string()), _CHUNK_ROWS))
    if not chunks:
        raise InputError(f"{path}: must have at least one pair, found none: check the file")
    return pa.concat_tables([table for table, _ in chunks]), chunks[0][1]


def _read_parquet(path: Path) -> tuple[pa.Table, Origin]:
    return pq.ParquetFile(path).read(), Origin(path, 0, lambda row: f"row {row + 1}")


def write_table(file: Path | IO[bytes], columns: Mapping[str, NDArray[Any]], kind: str) -> None:
    """Write columns of n rows as ``kind`` csv or parquet; a matrix (n, d) is a column of lists, in parquet only.

    NaN becomes an empty value.
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
    missing = np.isnan(values) if values.dtype.kind == "f" else None
    return pa.array(values, mask=missing)


def check_kind(path: Path, kinds: tuple[str, ...]) -> str:
    """Return the kind of file by its suffix. Raises ConfigError, also if it cannot be made there."""
    kind = path.suffix.removeprefix(".")
    if kind not in kinds:
        raise ConfigError(f"{path}: the file name must end in one of {', '.join(f'.{one}' for one in kinds)}")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent}: no such folder: create it first")
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path}: exists and is not a file: choose another name")
    return kind


def node_columns(trained: Trained, nodes: NDArray[np.int64]) -> AnswerColumns:
    """Return the user's ids of ``nodes`` (n,), and in bipartite streams their kind, source or destination."""
    columns: AnswerColumns = {"id": trained.ids.all[nodes]}
    if trained.ids.is_bipartite:
        columns["kind"] = trained.ids.kinds(nodes)
    return columns


def write_embeddings_file(
    path: Path, columns: AnswerColumns, embeddings: NDArray[np.float32], origin: Mapping[str, Any]
) -> None:
    """Write embeddings (n, dim) of the nodes in ``columns``, in the format of the suffix of ``path``.

    A .npy file holds only the matrix; the ids of its rows are written to NAME.ids.csv. Raises StoreError.
    """
    kind = check_kind(path, EMBEDDING_KINDS)
    if kind == "h5":
        write_embeddings(path, {**columns, "embedding": embeddings}, origin)
    elif kind == "parquet":
        write_table_file(path, {**columns, "embedding": embeddings})
    else:
        with write_errors(path, _REMEDY), replacing(path) as partial, partial.open("wb") as file:
            np.save(file, embeddings, allow_pickle=False)
        write_table_file(path.with_suffix(".ids.csv"), columns)


def write_table_file(path: Path, columns: AnswerColumns) -> None:
    """Write a table in the format of the suffix of ``path``. Raises StoreError."""
    kind = check_kind(path, TABLE_KINDS)
    with write_errors(path, _REMEDY), replacing(path) as partial:
        write_table(partial, columns, kind)


def scored_pairs(trained: Trained, pairs: Pairs, where: str, *, skip_unknown: bool = False) -> AnswerColumns:
    """Return the pairs with logits and probabilities, in their order. Raises InputError for unknown ids.

    skip_unknown: score such pairs NaN instead. where: source of the pairs, for messages.
    """
    src, dst = trained.ids.sources(pairs.src), trained.ids.targets(pairs.dst)
    if not skip_unknown:
        remedy = "append the events of these nodes, or pass --skip-unknown to leave their scores empty"
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
    """Return recommendations in the user's ids."""
    return {
        "src": trained.ids.all[found.src],
        "rank": found.rank,
        "dst": trained.ids.all[found.dst],
        "logit": found.logit,
        "probability": probability(found.logit),
    }


def origin_of(trained: Trained, run: Path, moment: Moment) -> dict[str, Any]:
    """Return run, weights, events and moment of a result, as JSON values."""
    return {
        "run": os.path.realpath(run),
        **trained.origin,
        "time": moment.time,
        "num_events": moment.position,
    }
