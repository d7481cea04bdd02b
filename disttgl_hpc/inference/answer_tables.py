"""Tables of results in csv and parquet, and the pairs of nodes that a user asks for."""

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

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.tcsr import Times
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.raw_events import Origin, exact_numbers, node_column
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, read_text

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
