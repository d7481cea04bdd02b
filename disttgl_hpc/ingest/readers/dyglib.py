"""Folders of DyGLib: ml_NAME.csv, ml_NAME.npy (edge features), ml_NAME_node.npy (node features)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns
from disttgl_hpc.ingest.raw_events import exact_numbers, feature_rows, raw_events
from disttgl_hpc.ingest.readers.array_files import map_array
from disttgl_hpc.ingest.readers.text_files import TextLayout, header_names, read_text, require_columns
from disttgl_hpc.ingest.source import Chunks, NodeTable, RawInput
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
_COLUMNS = Columns(src="u", dst="i", time="ts", node_label="label")
_PIECE = 1 << 16


def is_dyglib(folder: Path) -> bool:
    """Whether a folder looks like DyGLib's."""
    return any(folder.glob("ml_*.csv"))


def read_dyglib(path: Path, chunk_events: int) -> RawInput:
    """A folder with one dataset, or its ``ml_NAME.csv``; arrays are optional, and dropped if all zeros.

    Column idx is an event's row of edge features, a node's id its row of node features; row 0 of both is padding.
    Column label is a label of the source at that time. Raises InputError.
    """
    file = _table(path)
    edges, nodes = (_array(path) for path in _array_names(file))
    names = header_names(file)
    wanted = [*_COLUMNS.wanted, "idx"]
    require_columns(file, names, wanted)
    present = tuple(one for one in (file, *_array_names(file)) if one.is_file())
    table = None if nodes is None else NodeTable(_array_names(file)[1], nodes)
    return RawInput(present, _events(file, names, wanted, edges, chunk_events), table)


def _table(path: Path) -> Path:
    """The one csv of a folder."""
    if path.is_file():
        return path
    files = sorted(path.glob("ml_*.csv"))
    if len(files) != 1:
        raise InputError(
            f"{path}: a DyGLib folder must have one file ml_NAME.csv, found {len(files)}: name the one to prepare"
        )
    return files[0]


def _array_names(file: Path) -> tuple[Path, Path]:
    return file.with_name(f"{file.stem}.npy"), file.with_name(f"{file.stem}_node.npy")


def _array(path: Path) -> NDArray[Any] | None:
    """The array of a file, or None if it is missing or all zeros, as in streams without features."""
    if not path.is_file():
        return None
    rows = map_array(path)
    if rows.ndim not in (1, 2) or rows.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: features must be numbers (rows, columns), found {rows.shape} {rows.dtype}: convert them"
        )
    if not any(rows[start : start + _PIECE].any() for start in range(0, len(rows), _PIECE)):
        log.info("%s has only zeros and is ignored", path)
        return None
    return rows


def _events(
    file: Path, names: tuple[str, ...], wanted: list[str], features: NDArray[Any] | None, chunk_events: int
) -> Chunks:
    layout, kinds = TextLayout(",", names, header=True), dict.fromkeys(wanted, pa.string())
    for table, origin in read_text(file, layout, wanted, kinds, chunk_events):
        raw = raw_events(table, _COLUMNS, origin)
        if features is not None:
            rows = exact_numbers(table["idx"].combine_chunks(), "idx", origin)
            wrong = np.flatnonzero((rows < 0) | (rows >= len(features)) | (rows != np.floor(rows)))
            if len(wrong):
                row = int(wrong[0])
                raise origin.error(
                    row,
                    f"column 'idx' must be one of the {len(features):,} rows of {_array_names(file)[0].name}, "
                    f"found {rows[row]}: get the two files of one dataset",
                )
            raw = replace(raw, features=feature_rows(features[rows.astype(np.int64)], origin))
        yield raw, origin
