"""Logits, softmax and weighted sums of x = [h ‖ φ(Δ) ‖ e ‖ 1] over the neighbour slots of each root.

Two forms of one function: by torch, on any device and in any precision; and compiled, for float32 on processors,
with gradients by hand, no x in memory and no slot touched that holds no neighbour.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu

from disttgl_hpc.nn.arrays import feature_arrays, in_turns
from disttgl_hpc.nn.attention_loops import Slots, mix_backward, mix_forward
from disttgl_hpc.nn.inputs import GraphInputs
from disttgl_hpc.nn.parts import in_parts
from disttgl_hpc.nn.time_encoding import TimeEncoding

SLOPE = 0.2
"""LeakyReLU's slope for negative logits (TGL)."""


def mix_neighbors(  # noqa: PLR0917
    h: Tensor,
    query: Tensor,
    roots: Tensor,
    graph: GraphInputs,
    time: TimeEncoding,
    dropout: float,
) -> Tensor:
    """Σ a x over the neighbours of R roots, a being what softmax and dropout make of the logits query·x.

    h: (U, d); query: (H, n, d + T + e + 1), already folded, of n distinct nodes; roots: (R,) int64, which of them
    each root is. → (H, R, d + T + e + 1), of which the last is Σ a.
    """
    if h.device.type == "cpu" and h.dtype == torch.float32:
        mixed: Tensor = _Compiled.apply(  # type: ignore[no-untyped-call]
            h, query, time.frequency, time.phase, roots, graph, dropout
        )
        return mixed
    return mixed_by_torch(h, query, roots, graph, time, dropout)


def mixed_by_torch(  # noqa: PLR0917
    h: Tensor,
    query: Tensor,
    roots: Tensor,
    graph: GraphInputs,
    time: TimeEncoding,
    dropout: float,
) -> Tensor:
    """:func:`mix_neighbors` in whole-array operations."""
    parts = [h[graph.neighbors], time(graph.elapsed)]
    if graph.edges is not None:
        parts.append(graph.edges.gather(h.dtype))
    x = torch.cat([*parts, torch.ones_like(parts[0][..., :1])], 2)
    logits = query.transpose(0, 1)[roots] @ x.transpose(1, 2)
    empty = (torch.arange(x.shape[1], device=x.device) >= graph.counts.unsqueeze(1)).unsqueeze(1)
    # A finite floor, not −∞: a root without neighbours has weights that can be set to 0, not NaN.
    softmax = leaky_relu(logits, SLOPE).masked_fill(empty, torch.finfo(x.dtype).min).softmax(2)
    weights = softmax.masked_fill(empty, 0)
    if graph.keep is not None:
        weights = weights * graph.keep / (1 - dropout)
    return (weights @ x).transpose(0, 1)


class _Compiled(torch.autograd.Function):
    """:func:`mix_neighbors` for float32 on processors."""

    @staticmethod
    def forward(ctx, h, query, frequency, phase, roots, graph, dropout):  # type: ignore[no-untyped-def] # noqa: PLR0917
        slots = _slots(h, frequency, phase, roots, graph, dropout)
        query = query.detach().contiguous().numpy()
        heads, _, width = query.shape
        num_roots, num_slots = slots.neighbors.shape
        mixed = np.empty((heads, num_roots, width), np.float32)
        logits, softmax = np.empty((2, num_roots, heads, num_slots), np.float32)
        in_parts(
            num_roots,
            lambda first, last: mix_forward(
                first, last, query, np.float32(SLOPE), mixed, logits, softmax, *slots
            ),
        )
        ctx.kept = query, logits, softmax, slots
        return torch.from_numpy(mixed)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_mixed):  # type: ignore[no-untyped-def]
        query, logits, softmax, slots = ctx.kept
        given = query, d_mixed.contiguous().numpy(), np.float32(SLOPE), logits, softmax

        def part(first: int, last: int) -> list[np.ndarray]:
            sums = [np.zeros(shape, np.float32) for shape in (slots.h.shape, query.shape)]
            sums.append(np.zeros((2, len(slots.phase))))
            mix_backward(first, last, *given, *sums, *slots)
            return sums

        totals = [sum(sums[1:], start=sums[0]) for sums in zip(*in_parts(len(logits), part), strict=True)]
        d_h, d_query, d_time = (torch.from_numpy(total) for total in totals)
        d_frequency, d_phase = d_time.float()
        return d_h, d_query, d_frequency, d_phase, None, None, None


def _slots(  # noqa: PLR0917
    h: Tensor, frequency: Tensor, phase: Tensor, roots: Tensor, graph: GraphInputs, dropout: float
) -> Slots:
    """A graph's slots as the loops take them."""
    table, events, scale = feature_arrays(graph.edges, graph.neighbors)
    return Slots(
        h.detach().contiguous().numpy(),
        roots.numpy(),
        graph.neighbors.contiguous().numpy(),
        graph.counts.contiguous().numpy(),
        graph.elapsed.contiguous().numpy(),
        *in_turns(frequency, phase),
        table,
        events,
        scale,
        np.empty((0, 0, 0), np.bool_) if graph.keep is None else graph.keep.contiguous().numpy(),
        np.float32(1 / (1 - dropout)),
    )
