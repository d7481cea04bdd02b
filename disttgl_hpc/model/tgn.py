"""TGN-attention, the model of DistTGL: memory update, one attention layer, heads (Rossi et al., 2020)."""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.model.attention import TemporalAttention
from disttgl_hpc.model.heads import ClassHead, LinkHead
from disttgl_hpc.model.inputs import GraphInputs, ModelDims, NodeInputs
from disttgl_hpc.model.memory_update import MemoryUpdate
from disttgl_hpc.model.parameters import WeightDraws
from disttgl_hpc.model.products import Product, times_transposed, torch_product
from disttgl_hpc.model.time_encoding import TimeEncoding, TimeMode


class Tgn(nn.Module):
    """The whole model. It holds weights only; memory and mail are inputs of each batch.

    dropout: share of attention weights that ``GraphInputs.keep`` drops, in [0, 1). seed: determines the
    initial weights. time_unit: see ``TimeEncoding``. product: implementation of the large matrix products.
    Raises ConfigError if dropout is out of range.
    """

    def __init__(
        self,
        dims: ModelDims,
        dropout: float = 0.0,
        *,
        seed: int,
        time_mode: TimeMode = TimeMode.LEARNED,
        time_unit: float = 1.0,
        product: Product = torch_product,
    ):
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must lie in [0, 1), found {dropout}: 0 switches it off")
        draws = WeightDraws(seed)
        self.dims, self._product = dims, product
        self.time_encoding = TimeEncoding(dims.time, time_mode, time_unit)
        self.memory_update = MemoryUpdate(dims, draws, product)
        self.attention = TemporalAttention(dims, dropout, draws, product)
        self.link_head = LinkHead(dims.embedding, dims.pair, draws, product)
        given = dims.node + dims.static
        self.static = draws.uniform((dims.memory, given), 1 / sqrt(given)) if given else None
        self.class_head: ClassHead | None = None
        if dims.classes:  # drawn last, so that all other weights equal those of a model without it
            sizes = dims.embedding, dims.facts, dims.classes
            self.class_head = ClassHead(*sizes, draws, product, of_pair=dims.of_pair)

    def update_memory(self, nodes: NodeInputs) -> Tensor:
        """Updated memory (U, memory); nodes without mail keep theirs bit for bit."""
        memory: Tensor = self.memory_update(nodes, self.time_encoding)
        return memory

    def represent(self, memory: Tensor, nodes: NodeInputs) -> Tensor:
        """Input of attention, h (U, memory) = memory' + W·[node features ‖ static memory]."""
        given = [part for part in (nodes.node_features, nodes.static_memory) if part is not None]
        if self.static is None:
            return memory
        return memory + times_transposed(torch.cat(given, 1), self.static, self._product)

    def embed(self, h: Tensor, graph: GraphInputs) -> Tensor:
        """Embeddings (R, embedding) of the roots, from h (U, memory)."""
        embedding: Tensor = self.attention(h, graph, self.time_encoding)
        return embedding

    def scores(self, h_src: Tensor, h_dst: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Logits of events: see ``LinkHead.forward``."""
        logits: Tensor = self.link_head(h_src, h_dst, pairs)
        return logits

    def classify(self, h_src: Tensor, h_dst: Tensor, facts: Tensor | None = None) -> Tensor:
        """Class logits of events: see ``ClassHead.forward``. Raises ConfigError if the model has no class head."""
        if self.class_head is None:
            raise ConfigError(
                "the model has no class head: train one with --task edge or another task with classes"
            )
        logits: Tensor = self.class_head(h_src, h_dst, facts)
        return logits
