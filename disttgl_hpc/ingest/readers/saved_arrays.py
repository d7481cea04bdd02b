"""Events in arrays: NumPy's ``.npz``, a saved or given ``TemporalData`` of PyTorch Geometric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.readers.array_files import as_array, load_tensors, read_arrays
from disttgl_hpc.ingest.source import EventArrays, NodeTable, RawInput, array_events

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


def read_npz(path: Path, chunk_events: int) -> RawInput:
    """A ``.npz`` file of arrays named as NPZ_NAMES; src, dst and time are needed. Raises InputError."""
    found = read_arrays(path, NPZ_NAMES)
    _require(("src", "dst", "time"), found, path)
    negatives = [found.get(f"{part}_negatives") for part in ("validation", "test")]
    if (negatives[0] is None) != (negatives[1] is None):
        raise InputError(
            f"{path}: validation_negatives and test_negatives belong together, one is missing: give both"
        )
    arrays = EventArrays(
        {name: found[name] for name in _COLUMNS if name in found},
        _features(found.get("edge_features")),
        found.get("split"),
        None if negatives[0] is None or negatives[1] is None else (negatives[0], negatives[1]),
    )
    nodes = NodeTable(path, found["node_features"]) if "node_features" in found else None
    return RawInput((path,), array_events(arrays, path, chunk_events), nodes)


def read_pyg(path: Path, chunk_events: int) -> RawInput:
    """What ``torch.save(data.to_dict(), path)`` wrote of a ``TemporalData``. Raises InputError."""
    found = load_tensors(path)
    if not isinstance(found, Mapping):
        raise InputError(
            f"{path}: must hold a dict of tensors src, dst, t, msg and y, it holds {type(found).__name__}: save "
            "with torch.save(data.to_dict(), path)"
        )
    return RawInput((path,), _temporal_data(found, path, chunk_events))


def is_temporal_data(data: object) -> bool:
    """Whether an object has the tensors of a ``TemporalData``."""
    return all(hasattr(data, name) for name in ("src", "dst", "t"))


def given_temporal_data(data: object, chunk_events: int) -> RawInput:
    """A ``TemporalData``, or anything with its attributes. Raises InputError."""
    found = {name: getattr(data, name, None) for name in ("src", "dst", "t", "msg", "y")}
    return RawInput((), _temporal_data(found, "TemporalData", chunk_events))


def _temporal_data(found: Mapping[Any, Any], place: Path | str, chunk_events: int) -> Any:
    """Events of src, dst, t and, optionally, msg (edge features) and y (a label of the source at that time)."""
    given = {name: value for name, value in found.items() if value is not None}
    _require(("src", "dst", "t"), given, place)
    names = {"src": "src", "dst": "dst", "t": "time", "y": "node_label"}
    columns = {ours: as_array(given[name], place, name) for name, ours in names.items() if name in given}
    features = _features(as_array(given["msg"], place, "msg")) if "msg" in given else None
    return array_events(EventArrays(columns, features), place, chunk_events)


def _require(wanted: Iterable[str], found: Mapping[Any, Any], place: Path | str) -> None:
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(str(name)[:40] for name in list(found)[:10])
        raise InputError(f"{place}: missing {', '.join(missing)}; there are {shown}: add them")


def _features(rows: NDArray[Any] | None) -> NDArray[Any] | None:
    """Features, or None where they have no column."""
    return None if rows is None or (rows.ndim == 2 and rows.shape[1] == 0) else np.asarray(rows)
