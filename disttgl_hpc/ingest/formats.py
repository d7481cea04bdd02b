"""The input formats: how each is recognised, and the readers of those that are a single table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.columns import Columns, resolve
from disttgl_hpc.ingest.raw_events import Origin, RawEvents, raw_events
from disttgl_hpc.ingest.readers.arrays_and_frames import read_npz, read_pyg
from disttgl_hpc.ingest.readers.compressed_files import name_in_zip
from disttgl_hpc.ingest.readers.dyglib import is_dyglib, read_dyglib
from disttgl_hpc.ingest.readers.flights import CLASSES, flights_file, read_flights
from disttgl_hpc.ingest.readers.knowledge_graph import is_knowledge_graph, read_knowledge_graph
from disttgl_hpc.ingest.readers.text_files import TextLayout, first_line, header_names, read_text
from disttgl_hpc.ingest.readers.tgb import is_tgb_folder, is_tgb_name, read_tgb
from disttgl_hpc.ingest.readers.tgl import is_tgl, read_tgl
from disttgl_hpc.ingest.source import RawInput
from disttgl_hpc.store.files import check_is_file

Reader = Callable[[Path, Columns | None, int], Iterator[tuple[RawEvents, Origin]]]

_COMPRESSED = {".gz", ".bz2", ".zst", ".lz4", ".xz", ".zip"}
_BY_SUFFIX = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet", ".txt": "snap"}
_BY_SUFFIX |= {".npz": "npz", ".pt": "pyg"}


def read_csv(path: Path, columns: Columns | None, chunk_events: int) -> Iterator[tuple[RawEvents, Origin]]:
    """A header line, then one event a line, separated by commas (tabs where the header has them)."""
    header = first_line(path, 0)
    delimiter = "\t" if "\t" in header else ","
    names = header_names(path, delimiter)
    layout = TextLayout(delimiter, names, header=True)
    return _read_text(path, layout, resolve(columns or Columns(), names, str(path)), chunk_events)


def read_jodie(path: Path, columns: Columns | None, chunk_events: int) -> Iterator[tuple[RawEvents, Origin]]:
    """``user_id,item_id,timestamp,state_label`` and any number of features.

    The header has one name for all features, or none, so their number is taken from the first row. state_label is
    a label of the user at that time.
    """
    _refuse_columns("jodie", columns)
    width = len(first_line(path, 1).split(","))
    if width < 4:
        raise InputError(
            f"{path}, line 2: a jodie row has user, item, timestamp, state label and features, "
            f"{width} columns found: choose another --format"
        )
    features = tuple(f"feature_{index}" for index in range(width - 4))
    names = ("user_id", "item_id", "timestamp", "state_label", *features)
    known = Columns("user_id", "item_id", "timestamp", node_label="state_label", features=features)
    return _read_text(path, TextLayout(",", names, header=True), known, chunk_events)


def read_snap(path: Path, columns: Columns | None, chunk_events: int) -> Iterator[tuple[RawEvents, Origin]]:
    """``src dst unixtime`` separated by spaces or tabs, no header, '#' comments.

    Further columns are called 4, 5, … and are read only if ``--columns`` names them.
    """
    width = len(first_line(path, 0, comments=True).split())
    if width < 3:
        raise InputError(
            f"{path}: a snap row has source, destination and time, {width} columns found in the first: "
            "choose another --format"
        )
    names = ("src", "dst", "time", *(str(number) for number in range(4, width + 1)))
    layout = TextLayout(" ", names, header=False, comments=True, quotes=False)
    return _read_text(path, layout, resolve(columns or Columns(), names, str(path)), chunk_events)


def read_parquet(
    path: Path, columns: Columns | None, chunk_events: int
) -> Iterator[tuple[RawEvents, Origin]]:
    """Typed columns; timestamps keep the unit of their column, features may be one column of equal lists."""
    with _readable(path):
        file = pq.ParquetFile(path)
    known = resolve(columns or Columns(), file.schema_arrow.names, str(path))
    batches = file.iter_batches(chunk_events, columns=known.wanted)
    first_row = 0
    while True:
        with _readable(path):
            batch = next(batches, None)
        if batch is None:
            return
        origin = Origin(path, first_row, lambda row: f"row {row + 1}")
        yield raw_events(pa.Table.from_batches([batch]), known, origin), origin
        first_row += batch.num_rows


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn errors of the Parquet reader into InputError."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(
            f"{path}: not a Parquet file, or cut short ({reason}): get a complete copy"
        ) from None


def _read_text(
    path: Path, layout: TextLayout, columns: Columns, chunk_events: int
) -> Iterator[tuple[RawEvents, Origin]]:
    kinds = {name: pa.string() for name in columns.wanted} | {name: pa.float64() for name in columns.features}
    for table, origin in read_text(path, layout, columns.wanted, kinds, chunk_events):
        yield raw_events(table, columns, origin), origin


def _read_flights(
    path: Path, columns: Columns | None, chunk_events: int
) -> Iterator[tuple[RawEvents, Origin]]:
    _refuse_columns("flights", columns)
    return read_flights(path, chunk_events)


READERS: dict[str, Reader] = {
    "csv": read_csv,
    "parquet": read_parquet,
    "jodie": read_jodie,
    "snap": read_snap,
    "flights": _read_flights,
}
BIPARTITE_FORMATS = frozenset({"jodie", "flights"})
_WHOLE_READERS: dict[str, Callable[[Path, int], RawInput]] = {
    "tgl": read_tgl,
    "dyglib": read_dyglib,
    "tgb": read_tgb,
    "pyg": read_pyg,
    "kg": read_knowledge_graph,
    "npz": read_npz,
}
FORMATS = (*READERS, *_WHOLE_READERS)


def open_input(name: str, path: Path, columns: Columns | None, chunk_events: int) -> RawInput:
    """Open an input; its events are read as they are iterated over. Raises InputError."""
    if name == "flights":
        path = flights_file(path)
    if not path.exists() and not (name == "tgb" and is_tgb_name(path)):
        raise InputError(f"{path}: no such file: check the path")
    if path.exists() and not path.is_dir():
        check_is_file(path)
    if name in _WHOLE_READERS:
        _refuse_columns(name, columns)
        return _WHOLE_READERS[name](path, chunk_events)
    if path.is_dir():
        raise InputError(
            f"{path}: {name} input must be a file, this is a folder: name the file, or choose another --format"
        )
    classes = CLASSES if name == "flights" else None
    return RawInput((path,), READERS[name](path, columns, chunk_events), class_names=classes)


def format_of(path: Path) -> str:
    """The format of a file by its suffix, apart from that of a compression, or of a folder by its contents.

    Raises InputError if these are unknown.
    """
    if str(path) == "flights":
        return "flights"
    if is_tgb_name(path):
        return "tgb"
    if path.is_dir():
        return _format_of_folder(path)
    name = _format_of_name(path)
    if name is None and path.suffix.lower() == ".zip" and path.is_file():
        name = _format_of_name(name_in_zip(path))
    if name is None:
        raise InputError(f"{path}: unknown suffix: add --format {'|'.join(FORMATS)}")
    return name


def _format_of_name(path: Path) -> str | None:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    known = [suffix for suffix in suffixes if suffix not in _COMPRESSED]
    return _BY_SUFFIX.get(known[-1]) if known else None


def _format_of_folder(folder: Path) -> str:
    looks = {"tgl": is_tgl, "dyglib": is_dyglib, "kg": is_knowledge_graph}
    found = [name for name, is_one in looks.items() if is_one(folder)]
    if len(found) == 1:
        return found[0]
    if is_tgb_folder(folder):
        raise InputError(
            f"{folder}: datasets of TGB contain pickles, which can run any code when py-tgb loads them: add "
            "--format tgb if you trust the folder"
        )
    raise InputError(
        f"{folder}: a folder must hold edges.csv (tgl), one ml_*.csv (dyglib) or train.txt, valid.txt and test.txt "
        f"(kg), found {' and '.join(found) or 'no such file'}: name a file in it, or add --format"
    )


def _refuse_columns(name: str, columns: Columns | None) -> None:
    if columns is not None:
        raise InputError(f"--columns does not apply to {name}, whose columns are fixed: omit it")
