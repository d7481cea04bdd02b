"""Attention over sampled neighbours, folded so that no neighbour is ever projected.

A head's logit for neighbour x is q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and its output is Σ a (W_v x + b_v) =
W_v (Σ a x) + b_v Σ a. The projections thus act on one vector a root and head instead of one a neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from disttgl_hpc.nn.initial import Linear
from disttgl_hpc.nn.inputs import GraphInputs, ModelDims
from disttgl_hpc.nn.time_encoding import TimeEncoding, phase_angle

SLOPE = 0.2
"""LeakyReLU's slope for negative logits (TGL)."""


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


class _MixNeighbors(torch.autograd.Function):
    """Logits, softmax and weighted sums of x = [h ‖ φ(Δ) ‖ e] over the slots, with the gradients by hand.

    nodes: (U, d); query: (R, H, d + T + e), already folded; offset: (R, H), added to the logits;
    frequency, phase: (T,). → mixed (R, H, d + T + e), total (R, H): Σ a x and Σ a.
    """

    @staticmethod
    def forward(ctx, nodes, query, offset, frequency, phase, slots):  # type: ignore[no-untyped-def] # noqa: PLR0917
        angle = phase_angle(slots.elapsed, frequency, phase)
        parts = [nodes[slots.neighbors], angle.cos()] + ([] if slots.edges is None else [slots.edges])
        widths = [part.shape[2] for part in parts]
        logits = offset.unsqueeze(2)
        for folded, part in zip(query.split(widths, 2), parts, strict=True):
            logits = logits + folded @ part.transpose(1, 2)
        positive = logits > 0
        logits = torch.where(positive, logits, SLOPE * logits)
        # A finite floor instead of −∞: a root without neighbours then has weights to multiply by 0, not NaN.
        logits = logits.masked_fill(~slots.valid.unsqueeze(1), torch.finfo(logits.dtype).min)
        softmax = logits.softmax(2) * slots.valid.unsqueeze(1)
        weights = softmax if slots.scale is None else softmax * slots.scale
        ctx.save_for_backward(query, angle, positive, softmax, weights, *parts)
        ctx.slots, ctx.num_nodes = slots, len(nodes)
        return torch.cat([weights @ part for part in parts], 2), weights.sum(2)

    @staticmethod
    def backward(ctx, d_mixed, d_total):  # type: ignore[no-untyped-def]
        query, angle, positive, softmax, weights, *parts = ctx.saved_tensors
        slots = ctx.slots
        widths = [part.shape[2] for part in parts]
        d_weights = d_total.unsqueeze(2)
        for d_mix, part in zip(torch.split(d_mixed, widths, 2), parts, strict=True):
            d_weights = d_weights + d_mix @ part.transpose(1, 2)
        if slots.scale is not None:
            d_weights = d_weights * slots.scale
        d_logits = softmax * (d_weights - (softmax * d_weights).sum(2, keepdim=True))
        d_logits = torch.where(positive, d_logits, SLOPE * d_logits)
        d_query = torch.cat([d_logits @ part for part in parts], 2)
        # The gradient of x, of its node and time parts only: edge features are data.
        learned = widths[0] + widths[1]
        into = torch.cat([weights, d_logits], 1).transpose(1, 2)
        d_parts = into @ torch.cat([d_mixed[..., :learned], query[..., :learned]], 1)
        d_rows, d_encoded = torch.split(d_parts.flatten(0, 1), widths[:2], 1)
        d_nodes = d_rows.new_zeros(ctx.num_nodes, widths[0]).index_add_(0, slots.neighbors.flatten(), d_rows)
        slope = angle.sin().neg_().flatten(0, 1) * d_encoded
        d_frequency, d_phase = slots.elapsed.flatten() @ slope, slope.sum(0)
        return d_nodes, d_query, d_logits.sum(2), d_frequency, d_phase, None


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
        h_root = h[inputs.roots]
        attended = self._attend(h, h_root, inputs, time_encoding)
        embedding: Tensor = self.norm(self.out(torch.cat([attended, h_root], 1)).relu())
        return embedding

    def _attend(self, h: Tensor, h_root: Tensor, inputs: GraphInputs, time_encoding: TimeEncoding) -> Tensor:
        num_roots, num_slots = inputs.neighbors.shape
        heads = (self.dims.num_heads, self.dims.embedding // self.dims.num_heads)
        now = time_encoding.phase.cos().expand(num_roots, -1)
        query = self.query(torch.cat([h_root, now], 1)).view(num_roots, *heads)
        folded = torch.einsum("rhc,hcx->rhx", query, self.key.weight.view(*heads, -1))
        offset = torch.einsum("rhc,hc->rh", query, self.key.bias.view(heads))
        valid = torch.arange(num_slots, device=h.device) < inputs.counts.unsqueeze(1)
        scale = None if inputs.keep is None else inputs.keep.to(h.dtype) / (1 - self.dropout)
        mixed, total = _MixNeighbors.apply(  # type: ignore[no-untyped-call]
            h,
            folded,
            offset,
            time_encoding.frequency,
            time_encoding.phase,
            _Slots(inputs.neighbors, inputs.elapsed, inputs.edge_features, valid, scale),
        )
        attended = torch.einsum("rhx,hcx->rhc", mixed, self.value.weight.view(*heads, -1))
        biased: Tensor = attended + total.unsqueeze(2) * self.value.bias.view(heads)
        return biased.flatten(1)
