from dataclasses import replace

import torch
from model_oracles import TINY

from disttgl_hpc.model.heads import link_loss
from disttgl_hpc.model.tgn import Tgn


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_ranking_scores_are_the_pairwise_scores():
    model = Tgn(TINY, seed=0)
    h_src, candidates = normal(5, 4), normal(5, 7, 4)
    together = model.scores(h_src.unsqueeze(1), candidates)
    one_by_one = torch.stack([model.scores(h_src, candidates[:, n]) for n in range(7)], 1)
    assert together.shape == (5, 7)
    torch.testing.assert_close(together, one_by_one)


def test_score_is_the_formula():
    head = Tgn(TINY, seed=0).link_head
    h_src, h_dst = normal(3, 4), normal(6, 4)[:3]
    hidden = (h_src @ head.src.weight.T + head.src.bias + h_dst @ head.dst.weight.T + head.dst.bias).clamp(
        min=0
    )
    torch.testing.assert_close(head(h_src, h_dst), (hidden @ head.out.weight.T + head.out.bias).squeeze(1))


def test_pair_features_add_what_two_layers_make_of_them():
    head = Tgn(replace(TINY, pair=3), seed=0).link_head
    h_src, candidates, pairs = normal(5, 1, 4), normal(5, 7, 4), normal(5, 7, 3)
    hidden, out = head.pair[0], head.pair[2]
    told = (pairs @ hidden.weight.T + hidden.bias).clamp(min=0) @ out.weight.T + out.bias
    inner = h_src @ head.src.weight.T + head.src.bias + candidates @ head.dst.weight.T + head.dst.bias + told
    wanted = (inner.clamp(min=0) @ head.out.weight.T + head.out.bias).squeeze(-1)
    torch.testing.assert_close(head(h_src, candidates, pairs), wanted)


def test_loss_is_summed_over_events_and_averaged_over_negatives():
    positive, negative = normal(5), normal(3, 5)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    wanted = sum(
        entropy(positive[b], torch.tensor(1.0)) + entropy(negative[:, b], torch.zeros(3)) for b in range(5)
    )
    torch.testing.assert_close(link_loss(positive, negative), wanted)


def test_loss_of_two_halves_is_the_loss_of_the_whole():
    positive, negative = normal(6), normal(2, 6)
    halves = link_loss(positive[:3], negative[:, :3]) + link_loss(positive[3:], negative[:, 3:])
    torch.testing.assert_close(halves, link_loss(positive, negative))
