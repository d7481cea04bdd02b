"""Text files of events, compressed or not, read in chunks; every error names file and line."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv as pa_csv

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin
from disttgl_hpc.ingest.readers.compressed_files import DAMAGE, compression_of, decompressed
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
_BLOCK_BYTES = 2 << 20
_CHUNK_BYTES = 256 << 20
# From messages: pyarrow's invalid_row_handler fails for rows that are not UTF-8, and values have no handler.
_WIDTH_ERROR = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")
_VALUE_ERROR = re.compile(r"In CSV column #(\d+): Row #(\d+): CSV conversion error to (\w+):(.*)", re.DOTALL)
_STRADDLES = "straddl"  # of a quoted text longer than a block
_SHOWN_CHARACTERS = 40
_BOM = b"\xef\xbb\xbf"
_TO_CLOSING_QUOTE = re.compile(rb'[^"]*(?:""[^"]*)*"(?!")')


@dataclass(frozen=True)
class TextLayout:
    """Layout of a text file: delimiter, column names, header in line 1, '#' comment lines, quotes."""

    delimiter: str
    names: tuple[str, ...]
    header: bool
    comments: bool = False
    quotes: bool = True


def open_text(path: Path, *, comments: bool = False) -> Any:
    """Decompressed bytes of a file (gzip, bz2, zstd, lz4, the one file of a zip), by its first bytes, not its name.

    With ``comments``, lines that start with '#' are skipped and runs of blanks become one space. Raises InputError.
    """
    try:
        stream = decompressed(path)
    except DAMAGE as error:
        raise InputError(f"{path}: cannot be opened ({error}): check the name and its permissions") from None
    return _Tidied(stream) if comments else stream


def read_text(
    path: Path, layout: TextLayout, wanted: list[str], kinds: dict[str, pa.DataType], chunk_events: int
) -> Iterator[tuple[pa.Table, Origin]]:
    """Tables of about ``chunk_events`` rows with the wanted columns, of the Arrow types ``kinds``.

    Raises InputError for a row of another width, a value of another type, or a file that was cut short.
    """
    _warn_of_open_end(path)
    first_row, header = 0, int(layout.header)
    blank_lines = _first_line_number(path, layout) - 1 if layout.header else 0
    stream = _CountedLines(open_text(path, comments=layout.comments))

    def place(row: int) -> str:
        return f"line {line_of_row(path, row + header, layout)}"

    try:
        reader = pa_csv.open_csv(
            stream,
            # One thread: only then do the reader's errors have a row number.
            pa_csv.ReadOptions(
                use_threads=False,
                block_size=_BLOCK_BYTES,
                column_names=layout.names,
                skip_rows=blank_lines + header,
            ),
            pa_csv.ParseOptions(
                delimiter=layout.delimiter,
                quote_char='"' if layout.quotes else False,
                newlines_in_values=layout.quotes,
            ),
            pa_csv.ConvertOptions(include_columns=wanted, column_types=kinds, strings_can_be_null=False),
        )
        for table in _tables(reader, chunk_events):
            yield table, Origin(path, first_row, place)
            first_row += len(table)
    except DAMAGE as error:
        raise _refusal(error, path, layout, blank_lines) from None
    if layout.quotes and stream.has_quotes and stream.num_lines > blank_lines + header + first_row:
        _check_quoted_lines(path, layout)


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
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if suffixes and suffixes <= {".csv", ".tsv", ".txt"} and path.is_file() and path.stat().st_size:
        with path.open("rb") as file:
            if compression_of(file.read(16)):
                return
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                log.warning(
                    "%s does not end with a newline: if it was cut short, its last row is wrong", path
                )


def _check_quoted_lines(path: Path, layout: TextLayout) -> None:
    """Warn of a quoted text whose lines look like rows. Raises InputError for a quote that is never closed."""
    is_warned = False
    for row in _rows(path, layout):
        if row.is_open:
            raise InputError(
                f"{path}, line {row.line}: a quote opens in this row and is never closed: close or remove it"
            )
        if row.rows_inside and not is_warned:
            is_warned = True
            log.warning(
                "%s, line %d: a quoted text goes on over %d more lines, of which %d look like rows: if a quote is "
                "missing or superfluous here, their events are lost",
                path,
                row.line,
                row.more_lines,
                row.rows_inside,
            )


def first_line(path: Path, number: int, *, comments: bool = False, quotes: bool = True) -> str:
    """Row ``number`` (from 0) of a text file, blank lines not counted. Raises InputError if it does not exist."""
    layout = TextLayout(",", (), header=False, comments=comments, quotes=quotes and not comments)
    row = _row_at(path, number, layout)
    if row is None:
        raise InputError(f"{path}: is empty, at least one event is needed: check the file and --format")
    if row.more_lines or row.is_open:
        raise InputError(
            f"{path}, line {row.line}: a quote opens in this line and does not close in it: close or remove it"
        )
    return row.text


def _first_line_number(path: Path, layout: TextLayout) -> int:
    """Line, from 1, of the first row: pyarrow skips lines, blank ones too."""
    row = _row_at(path, 0, layout)
    return 1 if row is None else row.line


def _row_at(path: Path, number: int, layout: TextLayout) -> _Row | None:
    """Row ``number`` (from 0) of a file; None if it has fewer. Raises InputError for a damaged file."""
    try:
        return next((row for index, row in enumerate(_rows(path, layout)) if index == number), None)
    except DAMAGE as error:
        raise InputError(f"{path}: was cut short or is damaged ({error}): get a complete copy") from None


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


def line_of_row(path: Path, number: int, layout: TextLayout) -> int:
    """Line, from 1 as in an editor, on which row ``number`` (from 0) starts; blank lines and comments are not rows."""
    row = _row_at(path, number, layout)
    return number + 1 if row is None else row.line


class _Row(NamedTuple):
    """A row of a text file, which quoted line breaks continue on further lines.

    line: its first line, from 1. text: of this line. more_lines: that its quoted values go on over. rows_inside: of
    these, the lines with as many columns as a row. is_open: whether its last quote is never closed.
    """

    line: int
    text: str
    more_lines: int
    rows_inside: int
    is_open: bool


def _rows(path: Path, layout: TextLayout) -> Iterator[_Row]:
    delimiter = layout.delimiter.encode()
    with open_text(path) as stream:
        lines = enumerate(_lines(stream), 1)
        for number, line in lines:
            content = line.removeprefix(_BOM) if number == 1 else line
            text = content.decode("utf-8", "replace").strip("\r\n")
            if not text or (layout.comments and (not text.strip() or text.lstrip().startswith("#"))):
                continue
            more_lines = rows_inside = 0
            is_open = layout.quotes and _goes_on(content, delimiter, is_open=False)
            while is_open and (following := next(lines, None)):
                more_lines += 1
                rows_inside += following[1].count(delimiter) == len(layout.names) - 1
                is_open = _goes_on(following[1], delimiter, is_open=True)
            yield _Row(number, text, more_lines, rows_inside, is_open)


def _goes_on(line: bytes, delimiter: bytes, *, is_open: bool) -> bool:
    """Whether a quoted value goes on after a line; as for pyarrow, a quote inside a value that has none is a character.

    is_open: whether the line begins inside a quoted value.
    """
    if not is_open and b'"' not in line:
        return False
    at = 0
    while True:
        if is_open or line.startswith(b'"', at):
            closing = _TO_CLOSING_QUOTE.match(line, at if is_open else at + 1)
            if closing is None:
                return True
            at, is_open = closing.end(), False
        at = line.find(delimiter, at) + 1
        if not at:
            return False


def _lines(stream: Any) -> Iterator[bytes]:
    carry = b""
    while block := stream.read(1 << 16):
        *whole, carry = (carry + block).split(b"\n")
        yield from whole
    if carry:
        yield carry


class _CountedLines:
    """A readable stream that counts its lines and remembers whether it had quotes."""

    closed = False

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_in_line = False
        self._ends = 0
        self.has_quotes = False

    @property
    def num_lines(self) -> int:
        """Lines so far, blank ones too."""
        return self._ends + self._is_in_line

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; empty at the end of the file."""
        text: bytes = self._stream.read(size)
        if text:
            self._ends += text.count(b"\n")
            self._is_in_line = not text.endswith(b"\n")
            self.has_quotes = self.has_quotes or b'"' in text
        return text

    def close(self) -> None:
        """Close the underlying stream."""
        self._stream.close()
        self.closed = True


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


def _refusal(error: Exception, path: Path, layout: TextLayout, blank_lines: int) -> InputError:
    """The reader's error as file, line, rule, value and remedy; its rows count the skipped ``blank_lines``."""
    text = str(error)
    if width := _WIDTH_ERROR.search(text):
        number, expected, columns = width.groups()
        row = _row_at(path, int(number) - 1 - blank_lines, layout)
        line, more_lines = (number, 0) if row is None else (row.line, row.more_lines)
        quoted = f", and its quoted text goes on over {more_lines} more lines" if more_lines else ""
        return InputError(
            f"{path}, line {line}: every row must have {expected} columns, this one has {columns}{quoted}: correct "
            "it, or get a complete copy if the file ends here"
        )
    if value := _VALUE_ERROR.search(text):
        line = line_of_row(path, int(value[2]) - 1 - blank_lines, layout)
        found = " ".join(value[4].replace("invalid value", "").split())
        if len(found) > _SHOWN_CHARACTERS:
            found = f"{found[:_SHOWN_CHARACTERS]}…"
        return InputError(
            f"{path}, line {line}: column '{layout.names[int(value[1])]}' must hold {value[3]}, found {found}: "
            "correct or drop the row"
        )
    if "Empty CSV" in text:
        return InputError(f"{path}: is empty, at least one event is needed: check the file and --format")
    if _STRADDLES in text:
        longest = max(_rows(path, layout), key=lambda row: (row.more_lines, len(row.text)))
        return InputError(
            f"{path}, line {longest.line}: a row must be shorter than {_BLOCK_BYTES >> 20} MiB, this one has "
            f"{longest.more_lines:,} line breaks in quotes: close its quotes, or shorten it"
        )
    return InputError(f"{path}: was cut short or is damaged ({text.strip()}): get a complete copy")
