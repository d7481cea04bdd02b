"""Attention over sampled neighbours, folded so that no neighbour is ever projected.

A head's logit for neighbour x is q·(W_k x + b_k) = (W_kᵀ q)·x + q·b_k, and its output is Σ a (W_v x + b_v) =
W_v (Σ a x) + b_v Σ a. The projections thus act on one vector a root and head instead of one a neighbour; and of
a node that is the root of several events, what does not depend on their times is computed once. Below, x ends with
a 1 whose weights are the biases b_k and b_v.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from disttgl_hpc.model.initial_weights import Linear, WeightDraws
from disttgl_hpc.model.inputs import GraphInputs, ModelDims
from disttgl_hpc.model.mixing import attend
from disttgl_hpc.model.products import Product, times, times_transposed
from disttgl_hpc.model.time_encoding import TimeEncoding


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
        """What [x ‖ 1] is multiplied by for a logit, (H, n, d + T + e + 1), of nodes h (n, d)."""
        from_root, from_now = torch.split(self.query.weight, [self.dims.memory, self.dims.time], 1)
        now = torch.addmv(self.query.bias, from_now, time_encoding.phase.cos())
        query = times_transposed(h_nodes, from_root, self._product) + now
        by_head = query.view(len(query), self.dims.num_heads, -1).transpose(0, 1)
        return times(by_head, self._of_each_head(self.key), self._product)

    def _of_each_head(self, projection: Linear) -> Tensor:
        """Weight and bias that act on [x ‖ 1]: (H, embedding / H, d + T + e + 1)."""
        affine = torch.cat([projection.weight, projection.bias.unsqueeze(1)], 1)
        return affine.view(self.dims.num_heads, -1, affine.shape[1])
