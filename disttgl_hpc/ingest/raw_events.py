"""Raw events: checked and typed columns of input rows, with the user's ids, in the order of the file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.events.tcsr import Times
from disttgl_hpc.ingest.columns import Columns

ALL = "all"  # of --log-features: every column
_EXACT = float(2**53)
_TOO_LARGE = float(2**63)
_NANOSECOND_FRACTION = r"^-?[0-9]{9,}\.[0-9]{8,9}$"  # of seconds, as float64 does not hold


@dataclass(frozen=True)
class RawEvents:
    """Consecutive rows of one input, unsorted, with the user's ids.

    src, dst: (n,) arrow arrays, int64 or string. time: (n,) int64 or float64. edge_label: (n,) arrow or None.
    node_label: (n,) int64, label of the source at that time, or None. features: (n, dim) float32 or None.
    edge_classes: (n, C) uint8, 1 for each class of ``class_names`` that an event has, or None.
    split: (n,) int8, 0 training, 1 validation, 2 test, or None. negatives: (h, m) int64, node ids that the h rows
    of validation and test are ranked against, −1 as padding; or None. dropped_rows: rows that the reader dropped.
    time_unit: known for typed timestamps only, else empty. time_step: what times were rounded to before or by reading,
    near the largest one; 0 if they are as the user wrote them.
    """

    src: pa.Array
    dst: pa.Array
    time: Times
    edge_label: pa.Array | None = None
    node_label: NDArray[np.int64] | None = None
    features: NDArray[np.float32] | None = None
    edge_classes: NDArray[np.uint8] | None = None
    class_names: tuple[str, ...] = ()
    split: NDArray[np.int8] | None = None
    negatives: NDArray[np.int64] | None = None
    dropped_rows: int = 0
    time_unit: str = ""
    time_step: float = 0.0


@dataclass(frozen=True)
class Origin:
    """The place of a chunk's rows, so that a message can name it as an editor shows it."""

    path: Path | str
    first_row: int
    place: Callable[[int], str]

    def error(self, row: int, message: str) -> InputError:
        """An InputError at row ``row`` of the chunk."""
        return InputError(f"{self.path}, {self.place(self.first_row + row)}: {message}")


def raw_events(table: pa.Table, columns: Columns, origin: Origin) -> RawEvents:
    """A table's wanted columns, checked and converted. Raises InputError: file, row, rule and remedy."""
    given = table[columns.time].combine_chunks()
    time = exact_numbers(given, columns.time, origin)
    return RawEvents(
        src=node_column(table, columns.src, origin),
        dst=node_column(table, columns.dst, origin),
        time=time,
        edge_label=node_column(table, columns.label, origin) if columns.label else None,
        node_label=_node_label(table, columns.node_label, origin) if columns.node_label else None,
        features=_features(table, columns.features, origin) if columns.features else None,
        edge_classes=_edge_classes(table, columns.labels, origin) if columns.labels else None,
        class_names=columns.labels,
        time_unit=given.type.unit if pa.types.is_timestamp(given.type) else "",
        time_step=_time_step(given, time),
    )


def is_text(kind: pa.DataType) -> bool:
    """Whether values of an arrow type are strings."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def node_column(table: pa.Table, name: str, origin: Origin) -> pa.Array:
    """Ids or classes: integers, also as floats, as int64, text as text.

    Raises InputError for missing values, other types, and text that a store cannot hold.
    """
    values = _plain(table[name].combine_chunks())
    if is_text(values.type):
        values = _trimmed(values, name, origin)
        missing = pc.fill_null(pc.equal(values, ""), True)
    elif pa.types.is_integer(values.type) or pa.types.is_boolean(values.type):
        missing = values.is_null()
        try:
            values = values.cast(pa.int64())
        except pa.ArrowInvalid:
            raise origin.error(0, f"column '{name}' must hold ids below 2^63: renumber them") from None
    elif pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        missing, digits = np.isnan(numbers), np.finfo(numbers.dtype).nmant + 1
        row = first_true(~missing & ~(_is_whole(numbers) & (np.abs(numbers) < 2.0**digits)))
        if row is not None:
            raise origin.error(
                row,
                f"column '{name}' must hold integers or text, found {values.type} {numbers[row]}, and such numbers "
                f"are exact below 2^{digits} only: convert it",
            )
        values = pa.array(np.where(missing, 0, numbers).astype(np.int64))
    else:
        raise origin.error(0, f"column '{name}' must hold integers or text, found {values.type}: convert it")
    row = first_true(missing)
    if row is not None:
        raise origin.error(
            row, f"every row needs a value in column '{name}', found none: fill or drop the row"
        )
    return values


def _plain(values: pa.Array) -> pa.Array:
    """Values without dictionary, text as string or large string."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.large_string()) if pa.types.is_string_view(values.type) else values


def _trimmed(texts: pa.Array, name: str, origin: Origin) -> pa.Array:
    """Texts without blanks around them. Raises InputError for a line break or NUL inside one."""
    texts = pc.utf8_trim_whitespace(texts)
    content = _characters(texts)
    if not any(character in content for character in (b"\0", b"\n", b"\r")):
        return texts
    row = first_true(pc.fill_null(pc.match_substring_regex(texts, r"[\x00\n\r]"), False))
    if row is None:  # it is in the buffer of a missing value
        return texts
    found = str(texts[row])
    if "\0" in found:
        raise origin.error(
            row, f"column '{name}' must not have NUL characters, found {found[:40]!r}: remove them"
        )
    raise origin.error(
        row,
        f"column '{name}' must not have line breaks, found {len(found.splitlines())} lines that begin with "
        f"{found.splitlines()[0][:40]!r}: balance the quotes of this row, or remove the line breaks",
    )


def _characters(texts: pa.Array) -> bytes:
    """All characters of texts (n,) as UTF-8, one after the other."""
    _, end_bytes, data = texts.buffers()
    if data is None or not len(texts):
        return b""
    ends = np.frombuffer(end_bytes, np.int64 if pa.types.is_large_string(texts.type) else np.int32)
    first, last = (int(ends[texts.offset + row]) for row in (0, len(texts)))
    return bytes(data.slice(first, last - first))


def without_point(texts: pa.Array) -> pa.Array:
    """Texts (n,) in which integers with a decimal point, such as ``12.0``, are written without."""
    return pc.replace_substring_regex(texts, r"^(-?[0-9]+)\.0*$", r"\1")


def exact_numbers(values: pa.Array, name: str, origin: Origin) -> Times:
    """Exact numbers: int64 if every value is an integer (``36.0`` too), else float64.

    Raises InputError for the first value that is missing, not a number, or not finite, and for integers that neither
    type holds.
    """
    values = _plain(values)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    if is_text(values.type):
        values = _trimmed(values, name, origin)
    try:
        numbers = _parse(values)
    except pa.ArrowInvalid:
        row = _first_unparsable(values)
        if pa.types.is_integer(values.type) and values[row].is_valid:
            raise origin.error(
                row, f"column '{name}' must hold integers below 2^63, found {values[row]}: convert them"
            ) from None
        raise origin.error(
            row,
            f"column '{name}' must hold finite numbers, found '{values[row].as_py()}': convert dates to "
            "numbers such as Unix seconds, and drop rows without a time",
        ) from None
    if numbers.dtype == np.int64:
        return numbers
    is_large = np.abs(numbers) >= _EXACT
    if is_large.any():
        return _large_numbers(values, numbers, name, origin) if is_text(values.type) else numbers
    return numbers.astype(np.int64) if _is_whole(numbers).all() else numbers


def _large_numbers(values: pa.Array, numbers: NDArray[Any], name: str, origin: Origin) -> Times:
    """Texts (n,) of ``numbers``, some beyond 2^53, as integers if all of them are, else as exact floats."""
    texts = pc.replace_substring_regex(values, r"^\+?(-?[0-9]+)(\.0*)?$", r"\1")
    try:
        return np.asarray(texts.cast(pa.int64()))
    except pa.ArrowInvalid:
        is_integer = pc.match_substring_regex(texts, "^-?[0-9]+$").to_numpy(zero_copy_only=False)
    row = first_true(is_integer & (np.abs(numbers) >= _TOO_LARGE))
    if row is not None:
        raise origin.error(
            row, f"column '{name}' must hold integers below 2^63, found {values[row]}: convert them"
        )
    if (is_integer & (np.abs(numbers) >= _EXACT)).any():
        row = first_true(~is_integer) or 0
        raise origin.error(
            row,
            f"column '{name}' has integers beyond 2^53 and this {values[row]}, which cannot both be exact: convert "
            "all of them to integers of a smaller unit",
        )
    return numbers


def _is_whole(numbers: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(np.floor(numbers) == numbers)


def _time_step(given: pa.Array, time: Times) -> float:
    """What times were rounded to, near the largest one: as half or single floats, or by reading more digits.

    0 for integers that the type holds, and for text with fewer digits.
    """
    if not len(time):
        return 0.0
    largest = max(abs(float(time.max())), abs(float(time.min())))
    if pa.types.is_float16(given.type) or pa.types.is_float32(given.type):
        kind = np.float16 if pa.types.is_float16(given.type) else np.float32
        step = float(np.spacing(kind(largest)))
        return 0.0 if time.dtype == np.int64 and step <= 1 else step
    if time.dtype == np.int64 or not is_text(given.type):
        return 0.0
    has_nanoseconds = pc.any(pc.match_substring_regex(given, _NANOSECOND_FRACTION)).as_py()
    return float(np.spacing(largest)) if has_nanoseconds else 0.0


def _parse(values: pa.Array) -> Times:
    """Exact conversion of a whole array; raises ArrowInvalid if a value does not convert."""
    if values.null_count:
        raise pa.ArrowInvalid("missing value")
    if is_text(values.type) and any(character in _characters(values) for character in (b"x", b"X")):
        raise pa.ArrowInvalid("hexadecimal numbers, which only integers may be")
    if not pa.types.is_floating(values.type):
        try:
            return np.asarray(values.cast(pa.int64()))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = _cast(values, pa.float64())
    numbers = np.asarray(values.cast(pa.float64()), np.float64)
    if not np.isfinite(numbers).all():
        raise pa.ArrowInvalid("not finite")
    return numbers


def _cast(values: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return values.cast(kind)
    except pa.ArrowNotImplementedError as error:
        raise pa.ArrowInvalid(str(error)) from None


def _first_unparsable(values: pa.Array) -> int:
    """Row of the first value that does not convert, by bisection; for the error message only."""
    low, high = 0, len(values)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _parse(values[low:middle])
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def _node_label(table: pa.Table, name: str, origin: Origin) -> NDArray[np.int64]:
    labels = exact_numbers(table[name].combine_chunks(), name, origin)
    if labels.dtype != np.int64:
        row = first_true((labels != np.floor(labels)) | (np.abs(labels) >= _EXACT)) or 0
        raise origin.error(row, f"column '{name}' must hold integer labels, found {labels[row]}: number them")
    return labels.astype(np.int64, copy=False)


def _edge_classes(table: pa.Table, names: tuple[str, ...], origin: Origin) -> NDArray[np.uint8]:
    """Classes (n, C) uint8 from columns of 0 and 1."""
    classes = np.empty((len(table), len(names)), np.uint8)
    for index, name in enumerate(names):
        values = exact_numbers(table[name].combine_chunks(), name, origin)
        row = first_true((values != 0) & (values != 1))
        if row is not None:
            raise origin.error(
                row,
                f"column '{name}' of labels= must hold 0 or 1, found {values[row]}: use label= for a single class",
            )
        classes[:, index] = values
    return classes


def _features(table: pa.Table, names: tuple[str, ...], origin: Origin) -> NDArray[np.float32]:
    """Features (n, dim) float32 from numeric columns, or from one column of equally long lists."""
    first = table[names[0]].combine_chunks()
    if len(names) == 1 and (pa.types.is_list(first.type) or pa.types.is_fixed_size_list(first.type)):
        features = _list_features(first, names[0], origin)
    else:
        features = np.empty((len(table), len(names)), np.float32)
        for index, name in enumerate(names):
            features[:, index] = _numeric(table[name], name, origin)
    _refuse_infinite(features, names, origin)
    return features


def feature_rows(rows: NDArray[Any], origin: Origin) -> NDArray[np.float32]:
    """Features (n, dim) float32 from an array of numbers (n, dim) or (n,). Raises InputError."""
    if rows.dtype.kind not in "biuf" or rows.ndim not in (1, 2):
        raise origin.error(
            0, f"features must be numbers (rows, columns), found {rows.shape} {rows.dtype}: convert them"
        )
    with np.errstate(over="ignore"):
        features = rows.reshape(len(rows), -1).astype(np.float32)
    _refuse_infinite(features, [str(index) for index in range(features.shape[1])], origin)
    return features


def _refuse_infinite(features: NDArray[np.float32], names: Sequence[str], origin: Origin) -> None:
    row = first_true(~np.isfinite(features).all(axis=1))
    if row is not None:
        column = names[min(int(np.argmin(np.isfinite(features[row]))), len(names) - 1)]
        raise origin.error(
            row, f"features must be finite float32 numbers, column '{column}' is not: fill or drop the row"
        )


def _numeric(values: pa.ChunkedArray, name: str, origin: Origin) -> NDArray[np.float32]:
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise origin.error(0, f"feature column '{name}' must hold numbers, found {kind}: convert it")
    with np.errstate(over="ignore"):
        return np.asarray(values.combine_chunks().cast(pa.float64())).astype(np.float32)


def _list_features(lists: pa.Array, name: str, origin: Origin) -> NDArray[np.float32]:
    widths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
    row = first_true(widths != max(int(widths[0]), 1))
    if row is not None:
        found = "none" if widths[row] < 0 else str(widths[row])
        raise origin.error(
            row, f"feature rows must be equally wide, '{name}' has {widths[0]} values at first, here {found}"
        )
    return _numeric(pa.chunked_array([lists.flatten()]), name, origin).reshape(len(lists), -1)


def names_if_complete(names: Sequence[str], width: int) -> tuple[str, ...]:
    """The names of ``width`` columns; empty if there is not one name per column (unresolved ranges)."""
    return tuple(names) if len(names) == width else ()


def log_scaled(
    features: NDArray[np.float32] | None, wanted: Sequence[str], names: Sequence[str], origin: Origin
) -> NDArray[np.float32]:
    """Features (n, dim) with the ``wanted`` columns scaled to sign(x)·log(1 + |x|).

    Unlike a mean and standard deviation, this does not depend on other events, so features stay the same when later
    events are appended. wanted: names, numbers from 0, or ``("all",)``. names: of all columns in order, or empty.
    Raises InputError for a missing column.
    """
    if features is None:
        raise origin.error(
            0, "--log-features needs edge features, found none: name them with --columns …,features="
        )
    width = features.shape[1]
    known = names_if_complete(names, width)
    numbers = {str(number): number for number in range(width)}
    numbers |= {name: number for number, name in enumerate(known)}
    chosen = list(range(width)) if tuple(wanted) == (ALL,) else [numbers.get(name, -1) for name in wanted]
    if -1 in chosen:
        available = ", ".join(known) or f"0 to {width - 1}"
        raise origin.error(
            0,
            f"--log-features: no feature column '{wanted[chosen.index(-1)]}', available are {available}: correct "
            "the name",
        )
    scaled = features.copy()
    for column in chosen:  # one by one: a chunk may take up most of the memory
        values = features[:, column]
        scaled[:, column] = np.copysign(np.log1p(np.abs(values)), values)
    return scaled


def first_true(mask: pa.Array | NDArray[np.bool_]) -> int | None:
    """Index of the first true element; None without one."""
    flags = mask.to_numpy(zero_copy_only=False) if isinstance(mask, pa.Array) else mask
    index = int(np.argmax(flags)) if len(flags) else 0
    return index if len(flags) and flags[index] else None
