"""Link prediction: the head that scores pairs of embeddings, and its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from disttgl_hpc.nn.initial import Linear, WeightDraws
from disttgl_hpc.nn.products import Product


class LinkHead(nn.Module):
    """W(ReLU(W_s h_src + W_d h_dst)): the logit of an event between two nodes."""

    def __init__(self, dim: int, draws: WeightDraws, product: Product):
        super().__init__()
        self.src = Linear(dim, dim, draws, product)
        self.dst = Linear(dim, dim, draws, product)
        self.out = Linear(dim, 1, draws)

    def forward(self, h_src: Tensor, h_dst: Tensor) -> Tensor:
        """Logits (…,) of h_src (…, D) with h_dst (…, D), which broadcast against each other.

        To rank n candidates, give h_src (b, 1, D) and h_dst (b, n, D): each source is projected once.
        """
        logits: Tensor = self.out((self.src(h_src) + self.dst(h_dst)).relu())
        return logits.squeeze(-1)


def link_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross entropy summed over the b events: positive (b,), negative (m, b) logits → scalar.

    The m negatives of an event weigh as much as its positive. Summed, not averaged: trainers add up their
    sums and divide once by the number of events of the step.
    """
    return F.softplus(-positive).sum() + F.softplus(negative).sum() / len(negative)
