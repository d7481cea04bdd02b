"""Classification: the head that tells the classes of an event from the embeddings of its ends, and its loss."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from disttgl_hpc.model.initial_weights import Linear, WeightDraws
from disttgl_hpc.model.products import Product


class ClassHead(nn.Module):
    """W(ReLU(W_s h_src + W_d h_dst + W_p ReLU(W_q facts))): a logit for each of ``num_classes`` classes.

    of_pair: whether the destination counts; a class of the source has no second term. dim_facts: width of what
    else is known of an event before it happens; without any, 0, the third term is missing. Layers are of width
    ``dim`` and have biases.
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

        facts: (b, dim_facts), where the head was made for some.
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

    truth (b,) int64: cross entropy of one class an event, of class −1 none. truth (b, C) of 0 and 1: binary cross
    entropy, the mean over the classes. weights: (C,), of events that have a class.
    """
    if truth.dim() == 1:
        return F.cross_entropy(logits, truth, weights, ignore_index=-1, reduction="sum")
    each = F.binary_cross_entropy_with_logits(
        logits, truth.to(logits.dtype), pos_weight=weights, reduction="sum"
    )
    return each / logits.shape[1]
