"""User ids to consecutive integers, gathered chunk by chunk; memory grows with distinct ids only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from disttgl_hpc.ingest.id_hash import TextCodes
from disttgl_hpc.ingest.raw_events import Origin, first_true, is_text

_INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"


class IdTable:
    """Distinct user ids in order of first appearance; at most 2³¹ − 1 of them.

    Ids are integers or text, all kept as text. Text that is integers throughout is taken for integers only in the
    end, when all of it has been seen, so that neither chunking nor the order of rows decides.
    """

    def __init__(self, *, negative_allowed: bool = False) -> None:
        self._codes = TextCodes()
        self._integers_only = True
        self._negative_allowed = negative_allowed

    def __len__(self) -> int:
        return len(self._codes)

    def encode(self, values: pa.Array, origin: Origin) -> NDArray[np.int32]:
        """Codes (n,) int32 of ids (n,), new ids added. Raises InputError at the first negative integer."""
        known = len(self)
        self._integers_only = self._integers_only and not is_text(values.type)
        texts = values.cast(pa.string())
        codes = self._codes.encode(texts)
        if len(self) > known and not self._negative_allowed:
            _refuse_negative(self._codes.texts(known), texts, origin)
        return codes

    def ranks_and_ids(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | NDArray[np.str_]]:
        """Rank (n,) int64 of each code among the sorted ids, and the sorted ids (n,), int64 or text."""
        if not len(self):
            raise ValueError("ids are asked for after the first chunk only")
        ids = self._codes.texts()
        if self._integers_only or pc.all(pc.match_substring_regex(ids, _INTEGER)).as_py():
            ids = ids.cast(pa.int64())
        values = ids.to_numpy(zero_copy_only=False)
        if is_text(ids.type):
            values = values.astype(np.str_)
        order = np.argsort(values, kind="stable")
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        return ranks, values[order]


def _refuse_negative(new: pa.Array, texts: pa.Array, origin: Origin) -> None:
    index = first_true(pc.match_substring_regex(new, "^-[0-9]+$"))
    if index is not None:
        value = new[index].as_py()
        row = first_true(pc.equal(texts, value))
        raise origin.error(row or 0, f"node ids must not be negative, found {value}: renumber them from 0")


@dataclass(frozen=True)
class NodeNumbers:
    """Node of each code of the two tables, and the user's id of each node.

    src, dst: node by code, int64. ids: (N,) int64 or text, sorted; with two id spaces the num_src sources
    come first, sorted by themselves, and the destinations follow. num_src is 0 where both share one space.
    """

    src: NDArray[np.int64]
    dst: NDArray[np.int64]
    ids: NDArray[np.int64] | NDArray[np.str_]
    num_src: int


def number_nodes(src_ids: IdTable, dst_ids: IdTable) -> NodeNumbers:
    """Consecutive nodes from complete tables; bipartite if these are two."""
    ranks, ids = src_ids.ranks_and_ids()
    if src_ids is dst_ids:
        return NodeNumbers(ranks, ranks, ids, 0)
    dst_ranks, other_ids = dst_ids.ranks_and_ids()
    if ids.dtype.kind != other_ids.dtype.kind:
        ids, other_ids = ids.astype(np.str_), other_ids.astype(np.str_)
    return NodeNumbers(ranks, dst_ranks + len(ids), np.concatenate([ids, other_ids]), len(ids))
