"""Attention over sampled neighbours, reordered so that no neighbour is projected.

A head's logit for neighbour x is q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and its output is Σ a (W_v x + b_v) =
W_v (Σ a x) + b_v Σ a. The projections thus apply to one vector per root and head instead of one per
neighbour, and for a node that is the root of several events the part that does not depend on time is computed
once. Below, x = [h ‖ φ(Δ) ‖ e ‖ 1]; the weights of the final 1 are the biases b_k and b_v.

``attend`` has two implementations: plain torch, for any device and precision, and compiled loops for float32
on the CPU, with gradients by hand, without storing x and without touching empty slots.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu

from disttgl_hpc.model.inputs import GraphInputs, ModelDims, feature_arrays, in_turns
from disttgl_hpc.model.loops import Slots, mix_backward, mix_forward
from disttgl_hpc.model.parameters import Linear, WeightDraws
from disttgl_hpc.model.products import Product, in_parts, on_all_threads, times, times_transposed
from disttgl_hpc.model.time_encoding import TimeEncoding

SLOPE = 0.2
"""LeakyReLU's slope for negative logits (TGL)."""

_BLOCK = 256  # roots whose weighted sums stay in a core's cache between the loops and the products


def attend(  # noqa: PLR0917
    h: Tensor,
    query: Tensor,
    value: Tensor,
    nodes: Tensor,
    graph: GraphInputs,
    time: TimeEncoding,
    dropout: float,
    product: Product,
) -> Tensor:
    """V (Σ a x) of R roots over their neighbours, where a = dropout(softmax(query·x)) → (R, H·m), head by head.

    h: (U, d). query: (H, n, d + T + e + 1), W_kᵀ q of n distinct nodes. value: (H, m, d + T + e + 1). nodes:
    (R,) int64, the node of each root among the n.
    """
    if h.device.type == "cpu" and h.dtype == torch.float32:
        attended: Tensor = _Compiled.apply(  # type: ignore[no-untyped-call]
            h, query, value, time.frequency, time.phase, nodes, graph, dropout, product
        )
        return attended
    return attended_by_torch(h, query, value, nodes, graph, time, dropout, product)


def attended_by_torch(  # noqa: PLR0917
    h: Tensor,
    query: Tensor,
    value: Tensor,
    nodes: Tensor,
    graph: GraphInputs,
    time: TimeEncoding,
    dropout: float,
    product: Product,
) -> Tensor:
    """:func:`attend` in plain torch."""
    parts = [h[graph.neighbors], time(graph.elapsed)]
    if graph.edges is not None:
        parts.append(graph.edges.gather(h.dtype))
    x = torch.cat([*parts, torch.ones_like(parts[0][..., :1])], 2)
    logits = query.transpose(0, 1)[nodes] @ x.transpose(1, 2)
    empty = (torch.arange(x.shape[1], device=x.device) >= graph.counts.unsqueeze(1)).unsqueeze(1)
    # A finite floor instead of −∞: the weights of a root without neighbours are then finite and can be set to 0.
    softmax = leaky_relu(logits, SLOPE).masked_fill(empty, torch.finfo(x.dtype).min).softmax(2)
    weights = softmax.masked_fill(empty, 0)
    if graph.keep is not None:
        weights = weights * graph.keep / (1 - dropout)
    mixed = (weights @ x).transpose(0, 1)
    return times_transposed(mixed, value, product).transpose(0, 1).flatten(1)


class _Compiled(torch.autograd.Function):
    """:func:`attend` for float32 on the CPU, one block of roots after another."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def] # noqa: PLR0917
        ctx, h, query, value, frequency, phase, nodes, graph, dropout, product
    ):
        slots = _slots(h, frequency, phase, nodes, graph, dropout)
        # Detached, since no_grad does not apply to the threads of in_parts.
        query, value = query.detach().contiguous().numpy(), value.detach()
        transposed = value.transpose(1, 2).contiguous()
        heads, _, width = query.shape
        num_roots, num_slots = slots.neighbors.shape
        mixed, by_head = torch.empty(heads, num_roots, width), torch.empty(heads, num_roots, value.shape[1])
        logits, softmax = np.empty((2, num_roots, heads, num_slots), np.float32)
        given = query, np.float32(SLOPE), mixed.numpy(), logits, softmax

        def part(first: int, last: int) -> None:
            for begin, end in _blocks(first, last):
                mix_forward(begin, end, *given, *slots)
                by_head[:, begin:end] = product(mixed[:, begin:end], transposed)

        in_parts(num_roots, part)
        ctx.kept = query, value, mixed, logits, softmax, slots, product
        attended = torch.empty(num_roots, heads * value.shape[1])
        attended[torch.from_numpy(slots.order)] = by_head.transpose(0, 1).flatten(1)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx, d_attended):  # type: ignore[no-untyped-def]
        query, value, mixed, logits, softmax, slots, product = ctx.kept
        by_root = d_attended[torch.from_numpy(slots.order)].view(len(logits), len(query), -1)
        d_by_head = by_root.transpose(0, 1)

        def part(first: int, last: int) -> list[np.ndarray]:
            sums = [np.zeros(shape, np.float32) for shape in (slots.h.shape, query.shape)]
            sums.append(np.zeros((2, len(slots.phase))))
            for begin, end in _blocks(first, last):
                d_mixed = product(d_by_head[:, begin:end], value).numpy()
                mix_backward(begin, end, query, d_mixed, np.float32(SLOPE), logits, softmax, *sums, *slots)
            return sums

        totals = [sum(sums[1:], start=sums[0]) for sums in zip(*in_parts(len(logits), part), strict=True)]
        d_h, d_query, d_time = (torch.from_numpy(total) for total in totals)
        d_value = on_all_threads(product, d_by_head.transpose(1, 2), mixed)
        return d_h, d_query, d_value, *d_time.float(), None, None, None, None


def _blocks(first: int, last: int) -> Iterator[tuple[int, int]]:
    """[first, last) in blocks of at most _BLOCK."""
    for begin in range(first, last, _BLOCK):
        yield begin, min(begin + _BLOCK, last)


def _slots(  # noqa: PLR0917
    h: Tensor, frequency: Tensor, phase: Tensor, nodes: Tensor, graph: GraphInputs, dropout: float
) -> Slots:
    """A graph's slots as arrays for the compiled loops."""
    table, events, scale = feature_arrays(graph.edges, graph.neighbors)
    return Slots(
        h.detach().contiguous().numpy(),
        np.argsort(nodes.numpy(), kind="stable"),
        nodes.numpy(),
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


class TemporalAttention(nn.Module):
    """One layer of multi-head attention of a root over its recent neighbours (TGN; TGL's variant)."""

    def __init__(self, dims: ModelDims, dropout: float, draws: WeightDraws, product: Product):
        super().__init__()
        self.dims, self.dropout, self._product = dims, dropout, product
        dim_slot = dims.memory + dims.time + dims.edge
        self.query = Linear(dims.memory + dims.time, dims.embedding, draws)
        self.key = Linear(dim_slot, dims.embedding, draws)
        self.value = Linear(dim_slot, dims.embedding, draws)
        self.out = Linear(dims.embedding + dims.memory, dims.embedding, draws)
        self.norm = nn.LayerNorm(dims.embedding)

    def forward(self, h: Tensor, graph: GraphInputs, time_encoding: TimeEncoding) -> Tensor:
        """Embeddings (R, embedding) of the roots, from h (U, memory)."""
        nodes, roots = torch.unique(graph.roots, return_inverse=True)
        h_nodes = h.index_select(0, nodes)
        query = self._queries(h_nodes, time_encoding)
        value = self._of_each_head(self.value)
        attended = attend(h, query, value, roots, graph, time_encoding, self.dropout, self._product)
        from_attended, from_root = torch.split(self.out.weight, [self.dims.embedding, self.dims.memory], 1)
        itself = times_transposed(h_nodes, from_root, self._product) + self.out.bias
        out = times_transposed(attended, from_attended, self._product) + itself.index_select(0, roots)
        embedding: Tensor = self.norm(out.relu())
        return embedding

    def _queries(self, h_nodes: Tensor, time_encoding: TimeEncoding) -> Tensor:
        """W_kᵀ q, (H, n, d + T + e + 1), of nodes h (n, d): the factor of x in a logit."""
        from_root, from_now = torch.split(self.query.weight, [self.dims.memory, self.dims.time], 1)
        now = torch.addmv(self.query.bias, from_now, time_encoding.phase.cos())
        query = times_transposed(h_nodes, from_root, self._product) + now
        by_head = query.view(len(query), self.dims.num_heads, -1).transpose(0, 1)
        return times(by_head, self._of_each_head(self.key), self._product)

    def _of_each_head(self, projection: Linear) -> Tensor:
        """[weight ‖ bias] by head: (H, embedding / H, d + T + e + 1)."""
        affine = torch.cat([projection.weight, projection.bias.unsqueeze(1)], 1)
        return affine.view(self.dims.num_heads, -1, affine.shape[1])
