"""Events as arrays or data frames: NumPy's ``.npz``, PyTorch Geometric's ``TemporalData``, tables in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns, resolve
from disttgl_hpc.ingest.raw_events import Origin, raw_events
from disttgl_hpc.ingest.readers.array_files import as_array, load_tensors, read_arrays
from disttgl_hpc.ingest.source import Chunks, EventArrays, NodeTable, RawInput, array_events, row_place

NPZ_NAMES = (
    "src",
    "dst",
    "time",
    "edge_features",
    "node_features",
    "label",
    "node_label",
    "split",
    "validation_negatives",
    "test_negatives",
)
_COLUMNS = ("src", "dst", "time", "label", "node_label")
_FRAME = "frame"


def read_npz(path: Path, chunk_events: int) -> RawInput:
    """A ``.npz`` file of arrays named as in NPZ_NAMES; src, dst and time are required. Raises InputError."""
    found = read_arrays(path, NPZ_NAMES)
    _require(("src", "dst", "time"), found, path)
    validation, test = found.get("validation_negatives"), found.get("test_negatives")
    if (validation is None) != (test is None):
        raise InputError(
            f"{path}: validation_negatives and test_negatives belong together, one is missing: add it"
        )
    arrays = EventArrays(
        columns={name: found[name] for name in _COLUMNS if name in found},
        features=found.get("edge_features"),
        split=found.get("split"),
        negatives=None if validation is None or test is None else (validation, test),
    )
    nodes = NodeTable(path, found["node_features"]) if "node_features" in found else None
    return RawInput((path,), array_events(arrays, path, chunk_events), nodes)


def read_pyg(path: Path, chunk_events: int) -> RawInput:
    """A ``TemporalData`` saved by ``torch.save(data.to_dict(), path)``. Raises InputError."""
    found = load_tensors(path)
    if not isinstance(found, Mapping):
        raise InputError(
            f"{path}: must hold a dict of tensors src, dst, t, msg and y, found {type(found).__name__}: save it "
            "with torch.save(data.to_dict(), path)"
        )
    return RawInput((path,), _temporal_data(found, path, chunk_events))


def is_temporal_data(data: object) -> bool:
    """Whether an object has the tensors of a ``TemporalData``."""
    return all(hasattr(data, name) for name in ("src", "dst", "t"))


def given_temporal_data(data: object, chunk_events: int) -> RawInput:
    """A ``TemporalData`` in memory, or any object with its attributes. Raises InputError."""
    found = {name: getattr(data, name, None) for name in ("src", "dst", "t", "msg", "y")}
    return RawInput((), _temporal_data(found, "TemporalData", chunk_events))


def given_frame(frame: Any, columns: Columns | None, chunk_events: int) -> RawInput:
    """A data frame with Arrow's stream protocol (pandas, Polars, Arrow), or a mapping of columns; read in batches.

    Raises InputError for other objects.
    """
    try:
        if isinstance(frame, Mapping):
            frame = pa.table(dict(frame))
        if not hasattr(frame, "__arrow_c_stream__"):
            raise InputError(
                f"a frame must support Arrow's stream protocol, as pandas from 2.2 and Polars from 1.3 do, found "
                f"{type(frame).__name__}: pass such a frame, an Arrow table or a dict of columns"
            )
        reader = pa.RecordBatchReader.from_stream(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{_FRAME}: cannot be read as Arrow columns ({reason}): convert them") from None
    known = resolve(columns or Columns(), reader.schema.names, _FRAME)
    return RawInput((), _batches(reader, known, chunk_events))


def _batches(reader: pa.RecordBatchReader, columns: Columns, chunk_events: int) -> Chunks:
    first_row = 0
    for batch in reader:
        for start in range(0, batch.num_rows, chunk_events):
            table = pa.Table.from_batches([batch.slice(start, chunk_events)]).select(columns.wanted)
            origin = Origin(_FRAME, first_row, row_place)
            yield raw_events(table, columns, origin), origin
            first_row += len(table)


def _temporal_data(found: Mapping[Any, Any], place: Path | str, chunk_events: int) -> Chunks:
    """Events of src, dst, t and, optionally, msg (edge features) and y (a label of the source at that time)."""
    given = {name: value for name, value in found.items() if value is not None}
    _require(("src", "dst", "t"), given, place)
    names = {"src": "src", "dst": "dst", "t": "time", "y": "node_label"}
    columns = {ours: as_array(given[name], place, name) for name, ours in names.items() if name in given}
    features = as_array(given["msg"], place, "msg") if "msg" in given else None
    return array_events(EventArrays(columns, features), place, chunk_events)


def _require(wanted: Iterable[str], found: Mapping[Any, Any], place: Path | str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(str(name)[:40] for name in list(found)[:10])
        raise InputError(f"{place}: missing {', '.join(missing)}; found {shown}: add them")
