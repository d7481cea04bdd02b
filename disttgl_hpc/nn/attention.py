"""Attention over sampled neighbours, folded so that no neighbour is ever projected.

A head's logit for neighbour x is q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and its output is Σ a (W_v x + b_v) =
W_v (Σ a x) + b_v Σ a. The projections thus act on one vector a root and head instead of one a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import leaky_relu

from disttgl_hpc.nn.initial import Linear, WeightDraws
from disttgl_hpc.nn.inputs import GraphInputs, ModelDims
from disttgl_hpc.nn.time_encoding import TimeEncoding, phase_angle

SLOPE = 0.2
"""LeakyReLU's slope for negative logits (TGL)."""

CACHED_SLOTS = 1280
"""Slots worked on at a time by a processor: what they need then stays in its cache."""


@dataclass(frozen=True)
class _Chunk:
    """A range of n roots, worked on together, with the k slots that the fullest of them has.

    neighbors, elapsed: (n, k); edges: (R, ≥ k, e) of the whole batch and the (n,) rows of it that are meant, or
    None; empty: (n, 1, k), slots without a neighbour; scale: (n, H or 1, k), what the weights are multiplied by:
    0 for empty slots, otherwise dropout's factor.
    """

    rows: slice
    neighbors: Tensor
    elapsed: Tensor
    edges: Tensor | None
    edge_rows: Tensor
    empty: Tensor
    scale: Tensor

    def features(self, h: Tensor, angle: Tensor) -> Tensor:
        """The x = [h ‖ φ(Δ) ‖ e] of the slots: (n, k, d + T + e)."""
        parts = [h.index_select(0, self.neighbors.flatten()).view(*angle.shape[:2], -1), angle.cos()]
        if self.edges is not None:
            parts.append(self.edges.index_select(0, self.edge_rows)[:, : angle.shape[1]])
        return torch.cat(parts, 2)


def _chunks(graph: GraphInputs, order: Tensor, dropout: float) -> list[_Chunk]:
    """The batch's roots in descending order of their counts, cut into chunks: a chunk has hardly an empty slot.

    A processor gets chunks that fit its caches. Other devices get a single one, and need not wait for counts.
    """
    num_roots, num_slots = graph.neighbors.shape
    counts, neighbors, elapsed = graph.counts[order], graph.neighbors[order], graph.elapsed[order]
    empty = (torch.arange(num_slots, device=order.device) >= counts.unsqueeze(1)).unsqueeze(1)
    scale = (~empty).to(elapsed.dtype)
    if graph.keep is not None:
        scale = scale * graph.keep[order] / (1 - dropout)
    chunks, start = [], 0
    while start < num_roots:
        cached = order.device.type == "cpu"
        width = max(1, int(counts[start])) if cached else num_slots
        rows = slice(start, start + max(1, CACHED_SLOTS // width) if cached else num_roots)
        slots = (rows, slice(width))
        chunks.append(
            _Chunk(
                rows,
                neighbors[slots],
                elapsed[slots],
                graph.edge_features,
                order[rows],
                empty[rows, :, :width],
                scale[rows, :, :width],
            )
        )
        start = rows.stop
    return chunks


class _MixNeighbors(torch.autograd.Function):
    """Logits, softmax and weighted sums of x = [h ‖ φ(Δ) ‖ e] over the slots, with the gradients by hand.

    h: (U, d); query: (H, R, d + T + e), already folded; offset: (R, H), added to the logits; frequency, phase:
    (T,); chunks of the R roots. → mixed (H, R, d + T + e), total (R, H): Σ a x and Σ a.
    The angles of φ and x are kept for the gradients, which is faster than computing them again, unless nothing
    asks for gradients: evaluation's batches are large.
    """

    @staticmethod
    def forward(ctx, h, query, offset, frequency, phase, chunks):  # type: ignore[no-untyped-def] # noqa: PLR0917
        mixed, total, steps = torch.empty_like(query), torch.empty_like(offset), []
        query_of, mixed_of = query.transpose(0, 1), mixed.transpose(0, 1)
        for chunk in chunks:
            rows = chunk.rows
            angle = phase_angle(chunk.elapsed, frequency, phase)
            x = chunk.features(h, angle)
            logits = torch.baddbmm(offset[rows].unsqueeze(2), query_of[rows], x.transpose(1, 2))
            logits = leaky_relu(logits, SLOPE)
            # A finite floor, not −∞: a root without neighbours has weights that scale can set to 0, not NaN.
            softmax = logits.masked_fill(chunk.empty, torch.finfo(logits.dtype).min).softmax(2)
            weights = softmax * chunk.scale
            mixed_of[rows], total[rows] = weights @ x, weights.sum(2)
            if ctx.needs_input_grad[1]:
                steps.append((chunk, angle, x, logits, softmax))
        ctx.save_for_backward(h, query, phase)
        ctx.steps = steps
        return mixed, total

    @staticmethod
    @once_differentiable
    def backward(ctx, d_mixed, d_total):  # type: ignore[no-untyped-def]
        h, query, phase = ctx.saved_tensors
        timed = slice(h.shape[1], h.shape[1] + len(phase))
        learns_time = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        d_h, d_query, d_offset = torch.zeros_like(h), torch.empty_like(query), torch.empty_like(d_total)
        d_time = query.new_zeros(2, len(phase))
        query_of, d_mixed_of, d_query_of = (each.transpose(0, 1) for each in (query, d_mixed, d_query))
        for chunk, angle, x, logits, softmax in ctx.steps:
            rows = chunk.rows
            d_weights = torch.baddbmm(d_total[rows].unsqueeze(2), d_mixed_of[rows], x.transpose(1, 2))
            d_softmax = d_weights * chunk.scale
            d_logits = softmax * (d_softmax - (softmax * d_softmax).sum(2, keepdim=True))
            d_logits = torch.where(logits > 0, d_logits, SLOPE * d_logits)
            d_query_of[rows], d_offset[rows] = d_logits @ x, d_logits.sum(2)
            # x takes part in the weighted sums and in the logits; of x, edge features have no gradient.
            shares = torch.cat([softmax * chunk.scale, d_logits], 1).transpose(1, 2)
            sources = torch.cat([d_mixed_of[rows], query_of[rows]], 1)
            d_neighbors = (shares @ sources[..., : h.shape[1]]).flatten(0, 1)
            d_h.index_add_(0, chunk.neighbors.flatten(), d_neighbors)
            if learns_time:
                slope = (shares @ sources[..., timed]).mul_(angle.sin()).flatten(0, 1)
                elapsed = chunk.elapsed.flatten()
                d_time.addmm_(torch.stack([elapsed, torch.ones_like(elapsed)]), slope, alpha=-1)
        return d_h, d_query, d_offset, d_time[0], d_time[1], None


class TemporalAttention(nn.Module):
    """One layer of multi-head attention of a root over its recent neighbours (TGN; TGL's variant)."""

    def __init__(self, dims: ModelDims, dropout: float, draws: WeightDraws):
        super().__init__()
        self.dims, self.dropout = dims, dropout
        dim_slot = dims.memory + dims.time + dims.edge
        self.query = Linear(dims.memory + dims.time, dims.embedding, draws)
        self.key = Linear(dim_slot, dims.embedding, draws)
        self.value = Linear(dim_slot, dims.embedding, draws)
        self.out = Linear(dims.embedding + dims.memory, dims.embedding, draws)
        self.norm = nn.LayerNorm(dims.embedding)

    def forward(self, h: Tensor, graph: GraphInputs, time_encoding: TimeEncoding) -> Tensor:
        """Embeddings (R, embedding) of the roots, from h (U, memory)."""
        order = graph.counts.argsort(descending=True, stable=True)
        h_root = h.index_select(0, graph.roots[order])
        attended = self._attend(h, h_root, _chunks(graph, order, self.dropout), time_encoding)
        from_attended, from_root = torch.split(self.out.weight, [self.dims.embedding, self.dims.memory], 1)
        out = torch.addmm(torch.addmm(self.out.bias, attended, from_attended.T), h_root, from_root.T)
        embedding: Tensor = self.norm(out.relu()).index_select(0, order.argsort())
        return embedding

    def _attend(self, h: Tensor, h_root: Tensor, chunks: list[_Chunk], time_encoding: TimeEncoding) -> Tensor:
        """Weighted sums of the projected neighbours, heads side by side: (R, embedding)."""
        heads, width = self.dims.num_heads, self.dims.embedding // self.dims.num_heads
        from_root, from_now = torch.split(self.query.weight, [self.dims.memory, self.dims.time], 1)
        now = torch.addmv(self.query.bias, from_now, time_encoding.phase.cos())
        query = torch.addmm(now, h_root, from_root.T)
        offset = (query * self.key.bias).view(-1, heads, width).sum(2)
        by_head = query.view(-1, heads, width).transpose(0, 1)
        folded = by_head @ self.key.weight.view(heads, width, -1)
        mixed, total = _MixNeighbors.apply(  # type: ignore[no-untyped-call]
            h, folded, offset, time_encoding.frequency, time_encoding.phase, chunks
        )
        attended = mixed @ self.value.weight.view(heads, width, -1).transpose(1, 2)
        attended = attended.transpose(0, 1).flatten(1)
        biased: Tensor = attended + total.repeat_interleave(width, 1) * self.value.bias
        return biased
