"""Features of nodes by node id, gathered in the order of a store without being held in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import InputError
from disttgl_hpc.ingest.ids import NodeNumbers
from disttgl_hpc.ingest.readers.array_files import map_array

_KEPT = ("float16", "float32")


@dataclass(frozen=True)
class NodeTable:
    """Features of nodes: row r of ``rows`` (R, dim) is that of the node whose id is r; ``place`` names them."""

    place: Path | str
    rows: NDArray[Any]

    def __post_init__(self) -> None:
        """Refuse what cannot be a table of numbers; raises InputError."""
        if self.rows.ndim != 2 or self.rows.dtype.kind not in "biuf" or 0 in self.rows.shape:
            raise InputError(
                f"{self.place}: node features must be numbers (node ids, columns), found {self.rows.shape} "
                f"{self.rows.dtype}: convert them"
            )

    @classmethod
    def open(cls, path: Path) -> NodeTable:
        """The table in a ``.npy`` file, mapped. Raises InputError."""
        return cls(path, map_array(path))

    def of(self, nodes: NodeNumbers) -> GatheredRows:
        """The rows of a store's nodes. Raises InputError unless each has a row of its own."""
        if nodes.ids.dtype.kind != "i":
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, but ids are texts "
                f"such as '{nodes.ids[0]}': number the nodes from 0, or leave node features out"
            )
        ids = np.asarray(nodes.ids, np.int64)
        largest = int(ids.max())
        if largest >= len(self.rows):
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, {len(self.rows):,} rows "
                f"were found and the largest id is {largest}: give a row for every id"
            )
        shared = np.intersect1d(ids[: nodes.num_src], ids[nodes.num_src :])
        if nodes.num_src and len(shared):
            raise InputError(
                f"{self.place}: row r of the node features belongs to the node with id r, but {len(shared):,} ids "
                f"such as {shared[0]} are those of a source and of a destination: leave --bipartite out, or count "
                "destinations on from the sources"
            )
        return GatheredRows(self, ids)


@dataclass(frozen=True)
class GatheredRows:
    """Rows ``ids`` (N,) of a table, read when a slice of them is asked for."""

    table: NodeTable
    ids: NDArray[np.int64]

    @property
    def dtype(self) -> np.dtype[Any]:
        """float16 and float32 stay what they are, other numbers become float32."""
        dtype = self.table.rows.dtype
        return dtype.newbyteorder("=") if dtype.name in _KEPT else np.dtype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self.ids) * int(self.table.rows.shape[1]) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        """Rows of consecutive nodes. Raises InputError if one of them is not finite."""
        ids = self.ids[part]
        with np.errstate(over="ignore"):
            rows = self.table.rows[ids].astype(self.dtype)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(broken):
            raise InputError(
                f"{self.table.place}, row of node {ids[broken[0]]}: node features must be finite float32 numbers: "
                "fill them"
            )
        return rows
