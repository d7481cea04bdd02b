"""Inputs of the model: its widths, the nodes of a batch with their mail, its roots with their neighbours.

Floating-point tensors have the model's dtype, and all tensors are on its device. The last two functions
convert inputs to the arrays that the compiled loops take.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.errors import ConfigError


@dataclass(frozen=True)
class ModelDims:
    """Widths of the model's vectors; ``edge``, ``node`` and ``static`` are 0 if the data has no such features.

    pair: width of pair features, 0 for none. classes: number of classes to predict, 0 for no class head.
    facts: width of the class features. of_pair: whether classes are predicted from both ends or from the
    source alone.
    """

    memory: int = 100
    time: int = 100
    embedding: int = 100
    edge: int = 0
    node: int = 0
    static: int = 0
    num_heads: int = 2
    pair: int = 0
    classes: int = 0
    facts: int = 0
    of_pair: bool = True

    def __post_init__(self) -> None:
        for name in ("memory", "time", "embedding", "num_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be at least 1, found {getattr(self, name)}: choose a positive one"
                )
        for name in ("edge", "node", "static", "pair", "classes", "facts"):
            if getattr(self, name) < 0:
                raise ConfigError(
                    f"{name} must not be negative, found {getattr(self, name)}: use 0 for no features"
                )
        if self.embedding % self.num_heads:
            raise ConfigError(
                f"attention heads share the embedding equally, found {self.embedding} for {self.num_heads} "
                f"heads: choose a multiple of {self.num_heads}"
            )


@dataclass(frozen=True)
class EventFeatures:
    """Features of events by reference: a table and row numbers, so that compiled loops need no gathered copy.

    table: (E, edge) float or int8, possibly a memory map. rows: (…) int64. scale: (edge,) float32, the factor
    of int8 features, or None.
    """

    table: Tensor
    rows: Tensor
    scale: Tensor | None = None

    def gather(self, dtype: torch.dtype) -> Tensor:
        """Gathered features (…, edge)."""
        values = self.table[self.rows].to(dtype)
        return values if self.scale is None else values * self.scale.to(dtype)


@dataclass(frozen=True)
class NodeInputs:
    """The U distinct nodes of a batch, V ≤ U of them with mail.

    state: (U, 2·memory), the stored [memory ‖ peer] of each node.
    mail_rows: (V,) int64, ascending: the rows of ``state`` whose node has mail.
    mail_elapsed: (V,) mail_time − memory_time of those nodes, subtracted before the cast to float32.
    mail_edges: features of the V events behind the mails, or None.
    node_features: (U, node) or None. static_memory: (U, static) or None; a co-trained one has a gradient.
    """

    state: Tensor
    mail_rows: Tensor
    mail_elapsed: Tensor
    mail_edges: EventFeatures | None
    node_features: Tensor | None
    static_memory: Tensor | None = None


@dataclass(frozen=True)
class GraphInputs:
    """R roots with K neighbour slots each; nodes are rows of ``NodeInputs.state``.

    roots: (R,) int64. neighbors: (R, K) int64. elapsed: (R, K) root time − event time, subtracted before the
    cast to float32. edges: features of the events behind the (R, K) slots, or None. counts: (R,) int64; the
    first ``counts[r]`` slots of root r hold its neighbours. The others are ignored, but must hold rows in
    range and finite numbers. keep: (R, num_heads, K) bool, attention weights that dropout keeps; None keeps
    all. pairs: (…, pair), features of the pairs to score, or None. facts: (b, facts), class features of the
    events to classify, or None.
    """

    roots: Tensor
    neighbors: Tensor
    counts: Tensor
    elapsed: Tensor
    edges: EventFeatures | None
    keep: Tensor | None = None
    pairs: Tensor | None = None
    facts: Tensor | None = None


def in_turns(frequency: Tensor, phase: Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """ω and b (T,) in turns instead of radians, float64."""
    turns, offset = ((each.detach().double() / (2 * pi)).numpy() for each in (frequency, phase))
    return turns, offset


def feature_arrays(features: EventFeatures | None, rows: Tensor) -> tuple[NDArray[Any], ...]:
    """Table (E, e), row numbers in the shape of ``rows``, and scale (e,) or (0,); e is 0 without features.

    float16, which numba does not support, is returned as its bits in uint16.
    """
    no_scale = np.empty(0, np.float32)
    if features is None:
        return np.empty((1, 0), np.float32), np.zeros(rows.shape, np.int64), no_scale
    table = features.table.numpy()
    bits = table.view(np.uint16) if table.dtype == np.float16 else table
    scale = no_scale if features.scale is None else features.scale.numpy()
    return bits, features.rows.contiguous().numpy(), scale
