"""Nodes by the ids that the user has for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError, InputError

Ids = NDArray[np.int64] | NDArray[np.str_]
_SHOWN = 5


class NodeIds:
    """The user's ids of a stream's nodes; sources and destinations of bipartite streams have ids of their own."""

    def __init__(self, ids: Ids, num_src: int) -> None:
        self.all, self.num_src = ids, num_src
        spaces = {"sources": (0, num_src), "destinations": (num_src, len(ids))}
        self._spaces = spaces if num_src else {"nodes": (0, len(ids))}
        self._orders = {
            name: np.argsort(ids[slice(*ends)], kind="stable") for name, ends in self._spaces.items()
        }

    @property
    def is_bipartite(self) -> bool:
        """Whether sources and destinations are two kinds."""
        return self.num_src > 0

    @property
    def destinations(self) -> tuple[int, int]:
        """First and last of the nodes that can be destinations."""
        return self.num_src, len(self.all)

    def kinds(self, nodes: NDArray[np.int64]) -> NDArray[np.str_]:
        """The word source or destination for each of ``nodes`` (n,) of a bipartite stream."""
        return np.where(nodes < self.num_src, "source", "destination")

    def sources(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Number of the source with each id (n,), −1 where there is none."""
        return self._numbers(values, "sources" if self.is_bipartite else "nodes")

    def targets(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
        """Number of the destination with each id (n,), −1 where there is none."""
        return self._numbers(values, "destinations" if self.is_bipartite else "nodes")

    def nodes(self, values: Sequence[Any] | NDArray[Any] | None, of: str | None = None) -> NDArray[np.int64]:
        """Numbers of all nodes with these ids, in their order; None: of all nodes.

        of: "sources" or "destinations" of a bipartite stream only; else an id that names one of each gives both.
        Raises InputError naming ids that there are not, ConfigError for ``of`` in a stream of one node set.
        """
        if of is not None and of not in self._spaces:
            raise ConfigError(f"the stream has one set of nodes, {of} cannot be chosen: leave that out")
        spaces = list(self._spaces) if of is None else [of]
        if values is None:
            return np.concatenate([np.arange(*self._spaces[name]) for name in spaces])
        found = np.stack([self._numbers(values, name) for name in spaces], axis=1)
        refuse_unknown(values, found.max(axis=1, initial=-1), "--nodes", "check them")
        return found[found >= 0]

    def _numbers(self, values: Sequence[Any] | NDArray[Any], name: str) -> NDArray[np.int64]:
        first, last = self._spaces[name]
        ids, order = self.all[first:last], self._orders[name]
        wanted, is_possible = _as_ids(np.asarray(values), ids.dtype)
        places = np.searchsorted(ids, wanted, sorter=order)
        found = order[np.minimum(places, len(ids) - 1)]
        return np.where(is_possible & (ids[found] == wanted), found + first, -1)


def _as_ids(values: NDArray[Any], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values (n,) as ids of ``dtype``, and which of them can be one: in whole numbers a text may not."""
    if dtype.kind == "U":
        return values.astype(np.str_), np.ones(len(values), np.bool_)
    if values.dtype.kind in "iu":
        return values.astype(np.int64), np.ones(len(values), np.bool_)
    texts = np.char.strip(values.astype(np.str_))
    is_number = np.char.isdecimal(texts) & (np.char.str_len(texts) <= 18)
    return np.where(is_number, texts, "0").astype(np.int64), is_number


def refuse_unknown(values: Any, numbers: NDArray[np.int64], where: str, remedy: str) -> None:
    """Raise InputError if there is no node with one of the ids ``values`` (n,), where ``numbers`` (n,) is −1."""
    unknown = list(dict.fromkeys(f"{values[row]}" for row in np.flatnonzero(numbers < 0)))
    if unknown:
        more = f", … ({len(unknown)} in all)" if len(unknown) > _SHOWN else ""
        raise InputError(
            f"{where}: must be ids of nodes that the events have, there is none of "
            f"{', '.join(unknown[:_SHOWN])}{more}: {remedy}"
        )


def read_ids(text: str) -> list[str]:
    """Ids from ``a,b,c``, or of the file of this name: one a line. Raises InputError where there are none."""
    path, words = Path(text), text.split(",")
    try:
        if path.is_file():
            words = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as ids, one a line ({error}): give a text file") from error
    ids = [word.strip() for word in words if word.strip()]
    if not ids:
        raise InputError(f"--nodes must name a node, '{text}' names none: leave it out for all nodes")
    return ids
