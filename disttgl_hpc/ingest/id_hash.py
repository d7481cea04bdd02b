"""A growing set of distinct texts with consecutive codes: the hash table behind :mod:`.ids`, in compiled code."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from disttgl_hpc.compiled import compiled

Number = TypeVar("Number", bound=np.generic)

_LEAST_SLOTS = 1 << 10
_LONG = np.uint64(0xFF << 56)
_FNV_OFFSET, _FNV_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


class _Table(NamedTuple):
    """Text c is ``heap[ends[c]:ends[c + 1]]``.

    slots: (a power of two, 2) uint64, the key of a text and its code + 1, 0 where the slot is free. Key and code
    share a cache line: with texts of up to 7 bytes, most ids, a look-up is one access to memory.
    """

    heap: NDArray[np.uint8]
    ends: NDArray[np.int64]
    slots: NDArray[np.uint64]


class TextCodes:
    """Codes 0, 1, … of distinct texts in order of first appearance; at most 2³¹ − 1.

    Some 60 bytes a text besides the text itself; encoding costs the same whatever the number of known texts.
    """

    def __init__(self) -> None:
        slots = np.zeros((_LEAST_SLOTS, 2), np.uint64)
        self._table = _Table(np.empty(0, np.uint8), np.zeros(1, np.int64), slots)
        self._known = 0

    def __len__(self) -> int:
        return self._known

    def encode(self, texts: pa.StringArray) -> NDArray[np.int32]:
        """Codes (n,) int32 of texts (n,) without missing ones; new texts are added."""
        _, offset_bytes, data = texts.buffers()
        offsets = np.frombuffer(offset_bytes, np.int32)[texts.offset : texts.offset + len(texts) + 1]
        content = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        self._make_room(len(texts), int(offsets[-1] - offsets[0]))
        codes = np.empty(len(texts), np.int32)
        self._known = _encode(self._table, self._known, content, offsets, codes)
        return codes

    def texts(self, first: int = 0) -> pa.LargeStringArray:
        """The texts of codes from ``first`` on; a view that holds until the next :meth:`encode`."""
        ends = self._table.ends[first : self._known + 1]
        buffers = [None, pa.py_buffer(np.ascontiguousarray(ends)), pa.py_buffer(self._table.heap)]
        return pa.Array.from_buffers(pa.large_string(), len(ends) - 1, buffers)

    def _make_room(self, num_texts: int, num_bytes: int) -> None:
        """Let so many more texts fit, all of them new at worst, with half of the slots free."""
        heap, ends, slots = self._table
        most = self._known + num_texts
        if 2 * most > len(slots):
            slots = np.zeros((1 << (2 * most - 1).bit_length(), 2), np.uint64)
            _move_slots(self._table.slots, slots)
        self._table = _Table(_grown(heap, int(ends[self._known]) + num_bytes), _grown(ends, most + 1), slots)


def _grown(array: NDArray[Number], length: int) -> NDArray[Number]:
    """An array of at least ``length``, beginning as ``array``; doubled, so that growing costs little in all."""
    if length <= len(array):
        return array
    larger = np.empty(max(length, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


@compiled
def _move_slots(old: NDArray[np.uint64], new: NDArray[np.uint64]) -> None:
    """Enter what is in the old slots into the new ones, which are free."""
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
    """Fill in the codes, adding what is new; returns the number of known texts."""
    for row in range(len(codes)):
        text = content[offsets[row] : offsets[row + 1]]
        key = _key(text)
        slot = _find(table, text, key)
        if not table.slots[slot, 1]:
            begin = table.ends[known]
            table.heap[begin : begin + len(text)] = text
            table.ends[known + 1] = begin + len(text)
            known += 1
            table.slots[slot, 0], table.slots[slot, 1] = key, known
        codes[row] = np.int64(table.slots[slot, 1]) - 1
    return known


@compiled
def _find(table: _Table, text: NDArray[np.uint8], key: np.uint64) -> int:
    """The slot that holds a text, or the free one where it belongs."""
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
    begin = table.ends[code]
    if table.ends[code + 1] - begin != len(text):
        return False
    for index in range(len(text)):  # noqa: SIM110 (a generator is slow in compiled code)
        if table.heap[begin + index] != text[index]:
            return False
    return True


@compiled
def _first_slot(key: np.uint64, mask: int) -> int:
    """Where the search for a key begins: the product's high bits depend on all bits of the key."""
    return int(key * _SPREAD >> np.uint64(32)) & mask


@compiled
def _key(text: NDArray[np.uint8]) -> np.uint64:
    """Up to 7 bytes are their own key, with the length; of longer texts a hash, FNV-1a (Fowler, Noll, Vo)."""
    if len(text) < 8:
        key = np.uint64(len(text)) << np.uint64(56)
        for index in range(len(text)):
            key |= np.uint64(text[index]) << np.uint64(8 * index)
        return key
    key = _FNV_OFFSET
    for byte in text:
        key = (key ^ np.uint64(byte)) * _FNV_PRIME
    return key | _LONG
