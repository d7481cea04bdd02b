from dataclasses import replace

import pytest
import torch
from model_oracles import TINY

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.model.heads import class_loss
from disttgl_hpc.model.tgn import Tgn

CLASSES = replace(TINY, classes=3, facts=2)


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def linear(layer, x):
    return x @ layer.weight.T + layer.bias


def test_logits_are_the_formula():
    head = Tgn(CLASSES, seed=0).class_head
    h_src, h_dst, facts = normal(5, 4), normal(6, 4)[:5], normal(5, 2)
    told = linear(head.facts[2], linear(head.facts[0], facts).clamp(min=0))
    inner = linear(head.src, h_src) + linear(head.dst, h_dst) + told
    torch.testing.assert_close(head(h_src, h_dst, facts), linear(head.out, inner.clamp(min=0)))


def test_a_class_of_the_source_does_not_see_the_destination():
    model = Tgn(replace(CLASSES, of_pair=False), seed=0)
    h_src, facts = normal(5, 4), normal(5, 2)
    one, other = (
        model.classify(h_src, normal(7, 4)[:5], facts),
        model.classify(h_src, normal(8, 4)[:5], facts),
    )
    assert torch.equal(one, other)


def test_other_weights_are_those_of_a_model_without_classes():
    plain, telling = (dict(Tgn(dims, seed=3).named_parameters()) for dims in (TINY, CLASSES))
    assert set(plain) < set(telling)
    assert all(torch.equal(telling[name], parameter) for name, parameter in plain.items())


def test_a_model_without_classes_refuses_to_tell_any():
    with pytest.raises(ConfigError, match="--task edge"):
        Tgn(TINY, seed=0).classify(normal(5, 4), normal(5, 4))


@pytest.mark.parametrize("is_weighted", [False, True])
def test_losses_are_sums_over_events_by_hand(is_weighted):
    logits, weights = normal(4, 3), torch.tensor([0.5, 1.0, 2.0]) if is_weighted else None
    own = torch.ones(3) if weights is None else weights
    truth, several = torch.tensor([0, 2, 2, 1]), torch.tensor([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    by_hand = sum(-own[t] * logits[row].log_softmax(0)[t] for row, t in enumerate(truth))
    torch.testing.assert_close(class_loss(logits, truth, weights), by_hand)
    right, wrong = logits.sigmoid().log(), (-logits).sigmoid().log()
    by_hand = -(own * several * right + (1 - several) * wrong).sum() / 3
    torch.testing.assert_close(class_loss(logits, several.byte(), weights), by_hand)


def test_gradients_of_head_and_loss_are_right():
    model = Tgn(CLASSES, seed=1).double()
    ends = normal(6, 4).double().requires_grad_(), normal(7, 4)[:6].double().requires_grad_()
    facts = normal(6, 2).double()
    for truth in (torch.tensor([0, 1, 2, 0, 1, 2]), torch.eye(3)[[0, 1, 2, 0, 1, 2]].byte()):
        told = lambda one, other, t=truth: class_loss(model.classify(one, other, facts), t)  # noqa: E731
        assert torch.autograd.gradcheck(told, ends)


def test_events_of_unknown_class_have_no_loss():
    logits = normal(4, 3)
    some = class_loss(logits, torch.tensor([-1, 2, -1, 1]))
    torch.testing.assert_close(some, class_loss(logits[[1, 3]], torch.tensor([2, 1])))
