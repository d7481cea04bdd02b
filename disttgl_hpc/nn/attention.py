"""Attention over sampled neighbours, folded so that no neighbour is ever projected.

A head's logit for neighbour x is q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and its output is Σ a (W_v x + b_v) =
W_v (Σ a x) + b_v Σ a. The projections thus act on one vector a root and head instead of one a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disttgl_hpc.nn.initial import Linear
from disttgl_hpc.nn.inputs import GraphInputs, ModelDims
from disttgl_hpc.nn.time_encoding import TimeEncoding, phase_angle

SLOPE = 0.2
"""LeakyReLU's slope for negative logits (TGL)."""

CACHED_SLOTS = 1280
"""Slots worked on at a time by a processor: what they need then stays in its cache."""


@dataclass(frozen=True)
class _Slots:
    """What has no gradient: neighbors, elapsed and valid (R, K), edges (R, K, e) or None.

    scale: (R, H, K), what dropout multiplies each weight by; None without dropout.
    """

    neighbors: Tensor
    elapsed: Tensor
    edges: Tensor | None
    valid: Tensor
    scale: Tensor | None

    def chunks(self) -> Iterator[slice]:
        """Ranges of roots that are worked on together: all of them, but on a processor with its caches."""
        num_roots, num_slots = self.neighbors.shape
        size = max(1, CACHED_SLOTS // num_slots) if self.neighbors.device.type == "cpu" else num_roots
        return (slice(start, start + size) for start in range(0, num_roots, size))

    def features(self, h: Tensor, angle: Tensor, rows: slice) -> Tensor:
        """The x = [h ‖ φ(Δ) ‖ e] of the slots of a chunk: (rows, K, d + T + e)."""
        near = h.index_select(0, self.neighbors[rows].flatten()).view(*angle.shape[:2], -1)
        parts = [near, angle.cos()]
        return torch.cat(parts if self.edges is None else [*parts, self.edges[rows]], 2)


class _MixNeighbors(torch.autograd.Function):
    """Logits, softmax and weighted sums of x = [h ‖ φ(Δ) ‖ e] over the slots, with the gradients by hand.

    h: (U, d); query: (H, R, d + T + e), already folded; offset: (R, H), added to the logits;
    frequency, phase: (T,). → mixed (H, R, d + T + e), total (R, H): Σ a x and Σ a.
    Nothing as large as all slots is ever stored: x is computed again for the gradients, which is faster than
    writing it to memory and reading it back.
    """

    @staticmethod
    def forward(ctx, h, query, offset, frequency, phase, slots):  # type: ignore[no-untyped-def] # noqa: PLR0917
        mixed, slopes = torch.empty_like(query), query.new_empty(*offset.shape, slots.neighbors.shape[1])
        softmax, weights = torch.empty_like(slopes), torch.empty_like(slopes)
        by_root, mixed_by_root = query.transpose(0, 1), mixed.transpose(0, 1)
        for rows in slots.chunks():
            x = slots.features(h, phase_angle(slots.elapsed[rows], frequency, phase), rows)
            logits = torch.baddbmm(offset[rows].unsqueeze(2), by_root[rows], x.transpose(1, 2))
            slopes[rows] = torch.where(logits > 0, 1.0, SLOPE)
            # A finite floor instead of −∞: a root without neighbours has weights to multiply by 0, not NaN.
            valid = slots.valid[rows].unsqueeze(1)
            logits = torch.where(valid, logits * slopes[rows], torch.finfo(logits.dtype).min)
            softmax[rows] = logits.softmax(2) * valid
            weights[rows] = softmax[rows] if slots.scale is None else softmax[rows] * slots.scale[rows]
            mixed_by_root[rows] = weights[rows] @ x
        ctx.save_for_backward(h, query, frequency, phase, slopes, softmax, weights)
        ctx.slots = slots
        return mixed, weights.sum(2)

    @staticmethod
    def backward(ctx, d_mixed, d_total):  # type: ignore[no-untyped-def]
        h, query, frequency, phase, slopes, softmax, weights = ctx.saved_tensors
        slots, dim, learns_time = ctx.slots, h.shape[1], ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
        timed = slice(dim, dim + len(phase))
        d_h, d_query, d_logits = torch.zeros_like(h), torch.empty_like(query), torch.empty_like(softmax)
        d_time = query.new_zeros(2, len(phase))
        by_root, d_mixed, d_by_root = query.transpose(0, 1), d_mixed.transpose(0, 1), d_query.transpose(0, 1)
        for rows in slots.chunks():
            angle = phase_angle(slots.elapsed[rows], frequency, phase)
            x = slots.features(h, angle, rows)
            d_weights = torch.baddbmm(d_total[rows].unsqueeze(2), d_mixed[rows], x.transpose(1, 2))
            if slots.scale is not None:
                d_weights *= slots.scale[rows]
            a = softmax[rows]
            d_logits[rows] = a * (d_weights - (a * d_weights).sum(2, keepdim=True)) * slopes[rows]
            d_by_root[rows] = d_logits[rows] @ x
            # x takes part in the weighted sums and in the logits; of x, edge features have no gradient.
            shares = torch.cat([weights[rows], d_logits[rows]], 1).transpose(1, 2)
            sources = torch.cat([d_mixed[rows], by_root[rows]], 1)
            d_neighbors = shares @ sources[..., :dim]
            d_h.index_add_(0, slots.neighbors[rows].flatten(), d_neighbors.flatten(0, 1))
            if learns_time:
                slope = (shares @ sources[..., timed]).mul_(angle.sin()).flatten(0, 1)
                elapsed = slots.elapsed[rows].flatten()
                d_time.addmm_(torch.stack([elapsed, torch.ones_like(elapsed)]), slope, alpha=-1)
        return d_h, d_query, d_logits.sum(2), d_time[0], d_time[1], None


class TemporalAttention(nn.Module):
    """One layer of multi-head attention of a root over its recent neighbours (TGN; TGL's variant)."""

    def __init__(self, dims: ModelDims, dropout: float, generator: torch.Generator):
        super().__init__()
        self.dims, self.dropout = dims, dropout
        dim_slot = dims.memory + dims.time + dims.edge
        self.query = Linear(dims.memory + dims.time, dims.embedding, generator)
        self.key = Linear(dim_slot, dims.embedding, generator)
        self.value = Linear(dim_slot, dims.embedding, generator)
        self.out = Linear(dims.embedding + dims.memory, dims.embedding, generator)
        self.norm = nn.LayerNorm(dims.embedding)

    def forward(self, h: Tensor, inputs: GraphInputs, time_encoding: TimeEncoding) -> Tensor:
        """Embeddings (R, embedding) of the roots, from h (U, memory)."""
        h_root = h.index_select(0, inputs.roots)
        attended = self._attend(h, h_root, inputs, time_encoding)
        from_attended, from_root = torch.split(self.out.weight, [self.dims.embedding, self.dims.memory], 1)
        out = torch.addmm(torch.addmm(self.out.bias, attended, from_attended.T), h_root, from_root.T)
        embedding: Tensor = self.norm(out.relu())
        return embedding

    def _attend(self, h: Tensor, h_root: Tensor, inputs: GraphInputs, time_encoding: TimeEncoding) -> Tensor:
        heads, width = self.dims.num_heads, self.dims.embedding // self.dims.num_heads
        from_root, from_now = torch.split(self.query.weight, [self.dims.memory, self.dims.time], 1)
        now = torch.addmv(self.query.bias, from_now, time_encoding.phase.cos())
        query = torch.addmm(now, h_root, from_root.T)
        offset = (query * self.key.bias).view(-1, heads, width).sum(2)
        query_by_head = query.view(-1, heads, width).transpose(0, 1)
        mixed, total = _MixNeighbors.apply(  # type: ignore[no-untyped-call]
            h,
            query_by_head @ self.key.weight.view(heads, width, -1),
            offset,
            time_encoding.frequency,
            time_encoding.phase,
            self._slots(inputs),
        )
        by_head: Tensor = mixed @ self.value.weight.view(heads, width, -1).transpose(1, 2)
        return by_head.transpose(0, 1).flatten(1) + total.repeat_interleave(width, 1) * self.value.bias

    def _slots(self, inputs: GraphInputs) -> _Slots:
        """The batch's slots, with dropout's mask turned into factors."""
        valid = torch.arange(
            inputs.neighbors.shape[1], device=inputs.counts.device
        ) < inputs.counts.unsqueeze(1)
        scale = None if inputs.keep is None else inputs.keep.to(inputs.state.dtype) / (1 - self.dropout)
        return _Slots(inputs.neighbors, inputs.elapsed, inputs.edge_features, valid, scale)
