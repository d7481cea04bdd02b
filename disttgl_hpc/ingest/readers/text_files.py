"""Text files of events, compressed or not, read in chunks; every error names file and line."""

from __future__ import annotations

import csv
import os
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
_BLOCK_BYTES = 2 << 20
_CHUNK_BYTES = 256 << 20
# From messages: pyarrow's invalid_row_handler fails for rows that are not UTF-8, and values have no handler.
_WIDTH_ERROR = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_VALUE_ERROR = re.compile(r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+):(.*)", re.DOTALL)


@dataclass(frozen=True)
class TextLayout:
    """Layout of a text file: delimiter, column names, header in line 1, '#' comment lines, quotes."""

    delimiter: str
    names: tuple[str, ...]
    header: bool
    comments: bool = False
    quotes: bool = True


def open_text(path: Path, *, comments: bool = False) -> Any:
    """Decompressed bytes of a file (gz, bz2, zstd, lz4 by suffix; the one member of a zip).

    With ``comments``, lines that start with '#' are skipped and runs of blanks become one space. Raises InputError.
    """
    try:
        zipped = path.suffix == ".zip"
        stream = _only_member(path) if zipped else pa.input_stream(str(path), compression="detect")
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{path}: cannot be opened ({error}): check the name and its permissions") from None
    return _Tidied(stream) if comments else stream


def read_text(
    path: Path, layout: TextLayout, wanted: list[str], kinds: dict[str, pa.DataType], chunk_events: int
) -> Iterator[tuple[pa.Table, Origin]]:
    """Tables of about ``chunk_events`` rows with the wanted columns, of the Arrow types ``kinds``.

    Raises InputError for a row of another width, a value of another type, or a file that was cut short.
    """
    _warn_of_open_end(path)
    first_row = 0
    header = int(layout.header)

    def place(row: int) -> str:
        return f"line {line_of_row(path, row + header, comments=layout.comments)}"

    try:
        reader = pa_csv.open_csv(
            open_text(path, comments=layout.comments),
            # One thread: only then do the reader's errors have a row number.
            pa_csv.ReadOptions(
                use_threads=False, block_size=_BLOCK_BYTES, column_names=layout.names, skip_rows=header
            ),
            pa_csv.ParseOptions(delimiter=layout.delimiter, quote_char='"' if layout.quotes else False),
            pa_csv.ConvertOptions(include_columns=wanted, column_types=kinds, strings_can_be_null=False),
        )
        for table in _tables(reader, chunk_events):
            yield table, Origin(path, first_row, place)
            first_row += len(table)
    except (pa.ArrowInvalid, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _refusal(error, path, layout) from None


def _tables(batches: Any, chunk_events: int) -> Iterator[pa.Table]:
    """Record batches joined to chunks, bounded in rows and in bytes."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        for start in range(0, batch.num_rows, chunk_events):
            held.append(batch.slice(start, chunk_events))
            rows = sum(part.num_rows for part in held)
            if rows >= chunk_events or sum(part.nbytes for part in held) >= _CHUNK_BYTES:
                yield pa.Table.from_batches(held)
                held = []
    if held:
        yield pa.Table.from_batches(held)


def _warn_of_open_end(path: Path) -> None:
    """A plain file cut within its last number lacks only the last line end; compressed ones fail to decompress."""
    if path.suffix in {".csv", ".tsv", ".txt"} and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                log.warning(
                    "%s does not end with a newline: if it was cut short, its last row is wrong", path
                )


def first_line(path: Path, number: int, *, comments: bool = False) -> str:
    """Row ``number`` (from 0) of a text file, blank lines not counted. Raises InputError if it does not exist."""
    try:
        for row, (_, line) in enumerate(_rows(path, comments=comments)):
            if row == number:
                return line
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: was cut short or is damaged ({error}): get a complete copy") from None
    raise InputError(f"{path}: is empty, at least one event is needed: check the file and --format")


def require_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise InputError unless each wanted column is named once in a file's header."""
    if any(names.count(name) != 1 for name in wanted):
        raise InputError(
            f"{path}, line 1: must name the columns {', '.join(wanted)} once each, found "
            f"{', '.join(names[:20])}: rename them, or choose another --format"
        )


def header_names(path: Path, delimiter: str = ",") -> tuple[str, ...]:
    """Column names of a text file's first line. Raises InputError."""
    try:
        row = next(csv.reader([first_line(path, 0).lstrip("\ufeff")], delimiter=delimiter), [])
    except csv.Error as error:
        raise InputError(
            f"{path}, line 1: must name the columns ({error}): check that it is text, and --format"
        ) from None
    return tuple(name.strip() for name in row)


def line_of_row(path: Path, number: int, *, comments: bool = False) -> int:
    """Line, from 1 as in an editor, of row ``number`` (from 0); blank lines and comments are not rows."""
    for row, (line_number, _) in enumerate(_rows(path, comments=comments)):
        if row == number:
            return line_number
    return number + 1


def _rows(path: Path, *, comments: bool) -> Iterator[tuple[int, str]]:
    with open_text(path) as stream:
        for line_number, line in enumerate(_lines(stream), 1):
            text = line.decode("utf-8", "replace").strip("\r\n")
            if text and not (comments and (not text.strip() or text.lstrip().startswith("#"))):
                yield line_number, text


def _lines(stream: Any) -> Iterator[bytes]:
    carry = b""
    while block := stream.read(1 << 16):
        *whole, carry = (carry + block).split(b"\n")
        yield from whole
    if carry:
        yield carry


class _Tidied:
    """A readable stream of whole lines without comments, with single spaces between columns."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._carry = self._ready = b""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end of the file."""
        while not self._ready:
            block = self._stream.read(size)
            text = self._carry + block
            end = text.rfind(b"\n") + 1 if block else len(text)
            self._carry, self._ready = text[end:], _tidy(text[:end])
            if not block:
                break
        given, self._ready = self._ready[:size], self._ready[size:]
        return given

    def close(self) -> None:
        """Close the underlying stream."""
        self._stream.close()
        self.closed = True


def _tidy(text: bytes) -> bytes:
    text = text.replace(b"\t", b" ").replace(b"\r", b"")
    if b"#" in text:
        text = re.sub(rb"(?m)^ *#.*\n?", b"", text)
    if b"  " in text or b" \n" in text or b"\n " in text or text[:1] == b" " or text[-1:] == b" ":
        text = re.sub(rb"(?m)^ +| +$", b"", re.sub(rb" +", b" ", text))
    return text


def _only_member(path: Path) -> IO[bytes]:
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile:
        raise InputError(f"{path}: not a zip file, or cut short: get a complete copy") from None
    members = archive.namelist()
    if len(members) != 1:
        raise InputError(f"{path}: a zip must hold one file, {len(members)} found: unpack it")
    return archive.open(members[0])


def _refusal(error: Exception, path: Path, layout: TextLayout) -> InputError:
    """The reader's error as file, line, rule, value and remedy."""
    text = str(error)
    if width := _WIDTH_ERROR.search(text):
        row, expected, columns = width.groups()
        line = line_of_row(path, int(row) - 1, comments=layout.comments)
        return InputError(
            f"{path}, line {line}: every row must have {expected} columns, this one has {columns}: correct "
            "it, or get a complete copy if the file ends here"
        )
    if value := _VALUE_ERROR.search(text):
        line = line_of_row(path, int(value[2]) - 1, comments=layout.comments)
        found = value[4].replace("invalid value", "").strip()
        return InputError(
            f"{path}, line {line}: column '{layout.names[int(value[1])]}' must hold {value[3]}, found {found}: "
            "correct or drop the row"
        )
    if "Empty CSV" in text:
        return InputError(f"{path}: is empty, at least one event is needed: check the file and --format")
    return InputError(f"{path}: was cut short or is damaged ({text.strip()}): get a complete copy")
