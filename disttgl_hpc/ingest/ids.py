"""User ids to consecutive integers, chunk by chunk; memory grows with the number of distinct ids only.

:class:`IdTable` and :func:`number_nodes` turn ids into nodes; they use :class:`TextCodes`, a compiled hash table of
distinct texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled
from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.raw_events import Origin, first_true, is_text, without_point
from disttgl_hpc.log import get_logger

log = get_logger(__name__)
Number = TypeVar("Number", bound=np.generic)

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})(\.0*)?$"
_NEGATIVE = r"^-[0-9]+(\.0*)?$"
_SHORTENED = r"^-?[0-9]\.[0-9]+[eE][+-][0-9]+$"
_NO_NUMBER = pa.array(["nan", "NaN", "<NA>"])
_MISSING = pa.array([*_NO_NUMBER.to_pylist(), "NA", "N/A", "None", "null", "NULL"])
_LEAST_SLOTS = 1 << 10
_LONG = np.uint64(0xFF << 56)
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class IdTable:
    """Distinct user ids in order of first appearance; at most 2³¹ − 1 of them.

    Ids are integers or text, all kept as text. Whether all of them are integers is decided at the end, so that it
    depends neither on chunks nor on the order of rows; only then are ``12`` and ``12.0``, as pandas writes integers
    beside a missing value, one id. With ``of_classes``, the ids are names of classes, which may be negative.
    """

    def __init__(self, *, of_classes: bool = False) -> None:
        self._codes = TextCodes()
        self._integers_only = True
        self._of_classes = of_classes
        self._missing: InputError | None = None

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, values: pa.Array, origin: Origin) -> NDArray[np.int32]:
        """Codes (n,) int32 of ids (n,), new ids added.

        Raises InputError at the first id that is negative or has lost digits, and at a class that is not a number.
        """
        known = len(self)
        self._integers_only = self._integers_only and not is_text(values.type)
        texts = values.cast(pa.string())
        codes = self._codes.encode(texts)
        if len(self) > known:
            self._check(self._codes.texts(known), texts, origin)
        return codes

    def _check(self, new: pa.Array, texts: pa.Array, origin: Origin) -> None:
        """Check the new ones among the ids of a chunk, and remember the first that stands for a missing value."""

        def error(index: int, message: str) -> InputError:
            row = first_true(pc.equal(texts, new[index].as_py())) or 0
            return origin.error(row, message.format(new[index]))

        if not self._of_classes:
            index = first_true(pc.match_substring_regex(new, _NEGATIVE))
            if index is not None:
                raise error(index, "node ids must not be negative, found {}: renumber them from 0")
        index = first_true(pc.match_substring_regex(new, _SHORTENED))
        if index is not None:
            raise error(
                index,
                "ids and classes must have all their digits, found {}, as spreadsheets and floats write large "
                "numbers: export them as integers or text",
            )
        for words, is_refused in ((_NO_NUMBER, self._of_classes), (_MISSING, False)):
            index = first_true(pc.is_in(new, words.cast(new.type)))
            if index is not None:
                missing = error(index, "every row needs an id and a class, found '{}': fill or drop the row")
                if is_refused:
                    raise missing
                self._missing = self._missing or missing

    def ranks_and_ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | NDArray[np.str_]]:
        """Rank (n,) int64 of each code among the sorted ids, and the sorted ids (m,), int64 or text.

        Raises ValueError for an empty table, InputError if all are integers but for a word for missing values.
        """
        if not len(self):
            raise ValueError("encode at least one chunk before asking for ids")
        values = self._integers()
        if values is None:
            values = self._codes.texts().to_numpy(zero_copy_only=False).astype(np.str_)
        ids, ranks = np.unique(values, return_inverse=True)
        return ranks.astype(np.int64, copy=False), ids

    def _integers(self) -> NDArray[np.int64] | None:
        """All ids (n,) as int64, or None if one of them is another text or does not fit."""
        texts = self._codes.texts()
        if not self._integers_only:
            is_integer = pc.match_substring_regex(texts, _INTEGER)
            if self._missing is not None and pc.any(is_integer).as_py():
                is_word = pc.is_in(texts, _MISSING.cast(texts.type))
                if pc.all(pc.or_(is_integer, is_word)).as_py():
                    raise self._missing
            if not pc.all(is_integer).as_py():
                _warn_of_two_spellings(texts.filter(is_integer))
                return None
            if pc.any(pc.match_substring(texts, ".")).as_py():
                texts = without_point(texts)
        try:
            return np.asarray(texts.cast(pa.int64()))
        except pa.ArrowInvalid:  # from 2^63 on
            return None


def _warn_of_two_spellings(integers: pa.Array) -> None:
    """Warn if, among ids that are text because of others, an integer occurs with and without decimal point."""
    with_point = integers.filter(pc.match_substring(integers, "."))
    without = without_point(with_point)
    row = first_true(pc.is_in(without, integers))
    if row is not None:
        log.warning(
            "ids and classes '%s' and '%s' are taken as different texts, since not all of them are integers: if they "
            "are one, write them alike",
            without[row],
            with_point[row],
        )


@dataclass(frozen=True)
class NodeNumbers:
    """The node of each code of the two tables, and the user's id of each node.

    src, dst: node by code, int64. ids: (N,) int64 or text, sorted; with two id spaces, the num_src sources come
    first and the destinations follow, each sorted. num_src is 0 if both share one id space.
    """

    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    ids: NDArray[np.int64] | NDArray[np.str_]
    num_src: int


def number_nodes(src_ids: IdTable, dst_ids: IdTable) -> NodeNumbers:
    """Consecutive nodes from complete tables; bipartite if these are two different ones."""
    ranks, ids = src_ids.ranks_and_ids()
    if src_ids is dst_ids:
        return NodeNumbers(ranks, ranks, ids, 0)
    dst_ranks, other_ids = dst_ids.ranks_and_ids()
    if ids.dtype.kind != other_ids.dtype.kind:
        ids, other_ids = ids.astype(np.str_), other_ids.astype(np.str_)
    return NodeNumbers(ranks, dst_ranks + len(ids), np.concatenate([ids, other_ids]), len(ids))


class _Table(NamedTuple):
    """Text c is ``heap[ends[c]:ends[c + 1]]``.

    slots: (a power of two, 2) uint64, the key of a text and its code + 1, or 0 if the slot is free. Key and code
    share a cache line: for texts of up to 7 bytes, which most ids are, a look-up is one memory access.
    """

    heap: NDArray[np.uint8]
    ends: NDArray[np.int64]
    slots: NDArray[np.uint64]


class TextCodes:
    """Codes 0, 1, … of distinct texts in order of first appearance; at most 2³¹ − 1.

    About 60 bytes per text besides the text itself; the cost of encoding does not grow with the number of texts.
    """

    def __init__(self) -> None:
        slots = np.zeros((_LEAST_SLOTS, 2), np.uint64)
        self._table = _Table(np.empty(0, np.uint8), np.zeros(1, np.int64), slots)
        self._known = 0

    def __len__(self) -> int:
        return self._known

    def encode(self, texts: pa.StringArray) -> NDArray[np.int32]:
        """Codes (n,) int32 of texts (n,) without nulls; new texts are added."""
        _, offset_bytes, data = texts.buffers()
        offsets = np.frombuffer(offset_bytes, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self._make_room(len(texts), int(offsets[-1] - offsets[0]))
        codes = np.empty(len(texts), np.int32)
        self._known = _encode(self._table, self._known, content, offsets, codes)
        return codes

    def texts(self, first: int = 0) -> pa.LargeStringArray:
        """The texts of codes from ``first`` on; a view, valid until the next :meth:`encode`."""
        ends = self._table.ends[first : self._known + 1]
        buffers = [None, pa.py_buffer(np.ascontiguousarray(ends)), pa.py_buffer(self._table.heap)]
        return pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers)

    def _make_room(self, num_texts: int, num_bytes: int) -> None:
        """Grow the table so that this many new texts fit and at least half of the slots stay free."""
        heap, ends, slots = self._table
        most = self._known + num_texts
        if 2 * most > len(slots):
            slots = np.zeros((1 << (2 * most - 1).bit_length(), 2), np.uint64)
            _move_slots(self._table.slots, slots)
        self._table = _Table(_grown(heap, int(ends[self._known]) + num_bytes), _grown(ends, most + 1), slots)


def _grown(array: NDArray[Number], length: int) -> NDArray[Number]:
    """An array of at least ``length`` that starts with ``array``; doubled, so that growing is amortised."""
    if length <= len(array):
        return array
    larger = np.empty(max(length, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@compiled
def _move_slots(old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    """Insert the old slots into the new ones, which are free."""
    mask = len(new) - 1
    for row in range(len(old)):
        if old[row, 1]:
            slot = _first_slot(old[row, 0], mask)
            while new[slot, 1]:
                slot = (slot + 1) & mask
            new[slot] = old[row]


@compiled
def _encode(
    table: _Table,
    known: int,
    content: NDArray[np.uint8],
    offsets: NDArray[np.int32],
    codes: NDArray[np.int32],
) -> int:
    """Fill in the codes and add new texts; returns the number of known texts."""
    for row in range(len(codes)):
        text = content[offsets[row] : offsets[row + 1]]
        key = _key(text)
        slot = _find(table, text, key)
        if not table.slots[slot, 1]:
            start = table.ends[known]
            table.heap[start : start + len(text)] = text
            table.ends[known + 1] = start + len(text)
            known += 1
            table.slots[slot, 0], table.slots[slot, 1] = key, known
        codes[row] = np.int64(table.slots[slot, 1]) - 1
    return known


@compiled
def _find(table: _Table, text: NDArray[np.uint8], key: np.uint64) -> int:
    """The slot that holds a text, or the free one to insert it in."""
    mask = len(table.slots) - 1
    slot = _first_slot(key, mask)
    while table.slots[slot, 1]:
        if table.slots[slot, 0] == key and (key < _LONG or _equal(table, table.slots[slot, 1], text)):
            break
        slot = (slot + 1) & mask
    return slot


@compiled
def _equal(table: _Table, code_plus_one: int, text: NDArray[np.uint8]) -> bool:
    code = np.int64(code_plus_one) - 1
    start = table.ends[code]
    if table.ends[code + 1] - start != len(text):
        return False
    for index in range(len(text)):  # noqa: SIM110 (a generator is slow in compiled code)
        if table.heap[start + index] != text[index]:
            return False
    return True


@compiled
def _first_slot(key: np.uint64, mask: int) -> int:
    """The slot where the search for a key starts: the product's high bits depend on all bits of the key."""
    return int(key * _SPREAD >> np.uint64(32)) & mask


@compiled
def _key(text: NDArray[np.uint8]) -> np.uint64:
    """A text of up to 7 bytes and its length are the key; longer texts are hashed by FNV-1a (Fowler, Noll, Vo)."""
    if len(text) < 8:
        key = np.uint64(len(text)) << np.uint64(56)
        for index in range(len(text)):
            key |= np.uint64(text[index]) << np.uint64(8 * index)
        return key
    key = _FNV_OFFSET
    for byte in text:
        key = (key ^ np.uint64(byte)) * _FNV_PRIME
    return key | _LONG
