"""The heads and their losses: link prediction scores pairs of nodes, classification predicts event classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from disttgl_hpc.model.parameters import Linear, WeightDraws
from disttgl_hpc.model.products import Product


class LinkHead(nn.Module):
    """W(ReLU(W_s h_src + W_d h_dst + W_p ReLU(W_q pair))): the logit of an event between two nodes.

    dim_pair: width of pair features; with 0 there is no third term. All layers have width ``dim`` and biases.
    """

    def __init__(self, dim: int, dim_pair: int, draws: WeightDraws, product: Product):
        super().__init__()
        self.src = Linear(dim, dim, draws, product)
        self.dst = Linear(dim, dim, draws, product)
        self.out = Linear(dim, 1, draws)
        self.pair: nn.Module | None = None
        if dim_pair:
            layers = Linear(dim_pair, dim, draws, product), nn.ReLU(), Linear(dim, dim, draws, product)
            self.pair = nn.Sequential(*layers)

    def forward(self, h_src: Tensor, h_dst: Tensor, pairs: Tensor | None = None) -> Tensor:
        """Logits (…,) of h_src (…, D) with h_dst (…, D); the two are broadcast.

        To rank n candidates, pass h_src (b, 1, D) and h_dst (b, n, D): each source is projected once.
        pairs: (…, dim_pair), pair features, if the model has them.
        """
        hidden = self.src(h_src) + self.dst(h_dst)
        if self.pair is not None and pairs is not None:
            hidden = hidden + self.pair(pairs)
        logits: Tensor = self.out(hidden.relu())
        return logits.squeeze(-1)


def link_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """Binary cross entropy summed over the b events: positive (b,), negative (m, b) logits → scalar.

    The m negatives of an event together have the weight of its positive. The loss is a sum, not a mean:
    trainers add their sums and divide once by the number of events of the step.
    """
    return F.softplus(-positive).sum() + F.softplus(negative).sum() / len(negative)


class ClassHead(nn.Module):
    """W(ReLU(W_s h_src + W_d h_dst + W_p ReLU(W_q facts))): a logit for each of ``num_classes`` classes.

    of_pair: whether the class depends on the destination; a class of the source has no second term.
    dim_facts: width of the class features, which are known before the event; with 0 there is no third term.
    All layers but the last have width ``dim``; all have biases.
    """

    def __init__(
        self,
        dim: int,
        dim_facts: int,
        num_classes: int,
        draws: WeightDraws,
        product: Product,
        *,
        of_pair: bool,
    ):
        super().__init__()
        self.src = Linear(dim, dim, draws, product)
        self.dst = Linear(dim, dim, draws, product) if of_pair else None
        self.facts: nn.Module | None = None
        if dim_facts:
            layers = Linear(dim_facts, dim, draws, product), nn.ReLU(), Linear(dim, dim, draws, product)
            self.facts = nn.Sequential(*layers)
        self.out = Linear(dim, num_classes, draws, product)

    def forward(self, h_src: Tensor, h_dst: Tensor, facts: Tensor | None = None) -> Tensor:
        """Logits (b, num_classes) of events between h_src (b, D) and h_dst (b, D).

        facts: (b, dim_facts), class features, if the head has them.
        """
        hidden = self.src(h_src)
        if self.dst is not None:
            hidden = hidden + self.dst(h_dst)
        if self.facts is not None and facts is not None:
            hidden = hidden + self.facts(facts)
        logits: Tensor = self.out(hidden.relu())
        return logits


def class_loss(logits: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
    """Loss summed over the b events, logits (b, C) → scalar; trainers divide by the number of events, as for links.

    truth: (b,) int64 for cross entropy, where events of class −1 are ignored, or (b, C) of 0 and 1 for binary
    cross entropy, averaged over the classes. weights: (C,), class weights or None.
    """
    if truth.dim() == 1:
        return F.cross_entropy(logits, truth, weights, ignore_index=-1, reduction="sum")
    each = F.binary_cross_entropy_with_logits(
        logits, truth.to(logits.dtype), pos_weight=weights, reduction="sum"
    )
    return each / logits.shape[1]
