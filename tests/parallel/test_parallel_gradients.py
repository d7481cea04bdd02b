import zlib

import numpy as np
import pytest
import torch

from disttgl_hpc.errors import DeadlineError
from disttgl_hpc.grid.gradients import GradientSum


def model():
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 1))


def loss_of(network, events):
    return network(torch.from_numpy(events)).square().sum()


EVENTS = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
SHARES = [EVENTS[:3], EVENTS[3:9], EVENTS[9:10], EVENTS[10:]]  # the last trainer is idle


def whole_gradient():
    network = model()
    (loss_of(network, EVENTS) / len(EVENTS)).backward()
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.ranks(1)
def test_one_trainer_divides_by_its_events(comm):
    network = model()
    gradients = GradientSum(network.parameters(), comm)
    for _ in range(2):  # the second step must not see the first
        gradients.zero()
        loss_of(network, EVENTS).backward()
        assert gradients.sum(len(EVENTS)) == len(EVENTS)
        for parameter, whole in zip(network.parameters(), whole_gradient(), strict=True):
            torch.testing.assert_close(parameter.grad, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.ranks(1)
def test_gradients_that_torch_replaced_are_taken_along(comm):
    network = model()
    gradients = GradientSum(network.parameters(), comm)
    network.zero_grad(set_to_none=True)
    loss_of(network[0], EVENTS).backward()  # leaves the last layer without any
    gradients.sum(5)
    expected = model()
    loss_of(expected[0], EVENTS).backward()
    torch.testing.assert_close(network[0].weight.grad, expected[0].weight.grad / 5)
    assert network[2].weight.grad.abs().sum() == 0
    gradients.zero()
    assert network[0].weight.grad.abs().sum() == 0


@pytest.mark.ranks(1)
def test_a_step_without_events_is_an_error(comm):
    with pytest.raises(ValueError, match="at least one event"):
        GradientSum(model().parameters(), comm).sum(0)


@pytest.mark.parametrize("ranks", [pytest.param(n, marks=pytest.mark.ranks(n)) for n in (2, 4)])
def test_all_trainers_get_the_gradient_of_the_mean_over_all_events(comm, on_all_ranks, ranks):
    def body():
        shares = SHARES if ranks == 4 else [EVENTS[:7], EVENTS[7:]]
        network = model()
        gradients = GradientSum(network.parameters(), comm, timeout_s=20)
        results = []
        for _ in range(3):
            gradients.zero()
            if len(shares[comm.rank]):
                loss_of(network, shares[comm.rank]).backward()
            assert gradients.sum(len(shares[comm.rank])) == len(EVENTS)
            results.append(b"".join(parameter.grad.numpy().tobytes() for parameter in network.parameters()))
        for parameter, whole in zip(network.parameters(), whole_gradient(), strict=True):
            torch.testing.assert_close(parameter.grad, whole, rtol=1e-5, atol=1e-6)
        assert len(set(comm.allgather(results[0]) + results)) == 1, "the same bits on every rank, every time"
        assert gradients.sent_bytes == 0, "one node"
        gradients.free()

    on_all_ranks(body)


@pytest.mark.ranks(4)
@pytest.mark.parametrize("size", [7, 3000, 400_000])
def test_sums_have_the_same_bits_on_every_rank_and_every_time(comm, on_all_ranks, size):
    def body():
        values = torch.from_numpy(np.random.default_rng(comm.rank).normal(size=size).astype(np.float32))
        parameter = torch.nn.Parameter(torch.zeros(size))
        gradients = GradientSum([parameter], comm, timeout_s=20)
        results = []
        for _ in range(5):
            gradients.zero()
            parameter.grad.copy_(values)
            gradients.sum(1)
            results.append(zlib.crc32(parameter.grad.numpy().tobytes()))
        assert len({*map(tuple, comm.allgather(results)), tuple(results)}) == len(set(results)) == 1

    on_all_ranks(body)


@pytest.mark.ranks(2)
def test_pitfall_5_a_trainer_that_does_not_come_is_a_deadline_error(comm, on_all_ranks):
    def body():
        late = GradientSum(model().parameters(), comm, timeout_s=0.2)
        if comm.rank == 0:
            with pytest.raises(DeadlineError, match=r"waited 0\.2 s for the trainers' gradients"):
                late.sum(1)
        comm.barrier()
        if comm.rank == 1:
            with pytest.raises(DeadlineError, match=r"waited 0\.2 s for the trainers' gradients"):
                late.sum(1)  # rank 0 was there, but has not stayed

    on_all_ranks(body)
