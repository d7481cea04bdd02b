import subprocess
import sys

import pytest
import torch
from torch import nn

from disttgl_hpc.model.parameters import Adam

WITHOUT_COMPILER = """
import sys, torch
from disttgl_hpc.model.parameters import Adam
row = torch.nn.Parameter(torch.ones(3))
row.grad = torch.ones(3)
Adam([row], 0.1).step()
assert row.max() < 1
sys.exit("torch._dynamo" in sys.modules)
"""


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(30, 7), (5,), (2, 2)]]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torchs_optimiser(decay):
    own, theirs = parameters(), parameters()
    mine = Adam(own, 0.01, decay)
    oracle = torch.optim.Adam(theirs, 0.01, weight_decay=decay, fused=True)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        for position, (one, other) in enumerate(zip(own, theirs, strict=True)):
            moves = position != 1 or step % 2  # the second one has a gradient in every other step
            one.grad = torch.randn(one.shape, generator=generator) if moves else None
            other.grad = one.grad
        mine.step()
        oracle.step()
        assert all(torch.equal(one, other) for one, other in zip(own, theirs, strict=True)), step
    states = oracle.state_dict()["state"]
    for position, state in enumerate(mine.state):
        expected = states[position]
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in state)


def test_a_step_does_not_load_torchs_compiler():
    assert subprocess.run([sys.executable, "-c", WITHOUT_COMPILER], check=False, timeout=120).returncode == 0
