import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import textbook_encoding

from disttgl_hpc.model.time_encoding import TimeEncoding, TimeMode


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e10, 1e10, width=32), min_size=1, max_size=8),
    st.lists(st.floats(2.0**-30, 1, width=32), min_size=1, max_size=5),
    st.floats(-3, 3, width=32),
)
def test_float32_encoding_is_as_good_as_float64(elapsed, frequency, phase):
    encoding = TimeEncoding(len(frequency))
    with torch.no_grad():
        encoding.frequency.copy_(torch.tensor(frequency))
        encoding.phase.fill_(phase)
    delta = torch.tensor(elapsed)
    exact = textbook_encoding(delta.double(), encoding.frequency, encoding.phase)
    assert (encoding(delta) - exact).abs().max() < 1e-5


def test_naive_product_would_fail_that_test():
    delta = torch.arange(1.0, 1000.0) * 1.0e6
    frequency = TimeEncoding(20).frequency
    naive = (delta.unsqueeze(1) * frequency).cos()
    assert (naive - textbook_encoding(delta.double(), frequency, torch.zeros(20))).abs().max() > 1e-2


@pytest.mark.parametrize("mode", [TimeMode.LEARNED, TimeMode.LOG_LEARNED])
def test_gradients_at_a_billion_seconds_match_float64(mode):
    encoding = TimeEncoding(20, mode)
    delta = torch.rand(64, 3, generator=torch.Generator().manual_seed(0)) * 1e9
    upstream = torch.randn(64, 3, 20, generator=torch.Generator().manual_seed(1))
    (encoding(delta) * upstream).sum().backward()
    found = [parameter.grad for parameter in encoding.parameters()]
    held = [parameter.detach().double().requires_grad_() for parameter in encoding.parameters()]
    # The model's ω is what float32 holds: round as it does, keep the gradient of the exact function.
    frequency = held[0] if mode is TimeMode.LEARNED else held[0].exp()
    frequency = frequency + (encoding.frequency - frequency).detach()
    exact = (delta.double().unsqueeze(-1) * frequency + held[1]).cos()
    wanted = torch.autograd.grad((exact * upstream).sum(), held)
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() < 1e-5 * b.abs().max()


@pytest.mark.parametrize("mode", list(TimeMode))
def test_every_mode_starts_at_the_same_frequencies(mode):
    expected = 10 ** (-9 * torch.linspace(0, 1, 30, dtype=torch.float64))
    frequency = TimeEncoding(30, mode).frequency.detach().double()
    torch.testing.assert_close(frequency, expected, rtol=1e-5, atol=0)


def test_fixed_mode_has_nothing_to_learn():
    assert not [p for p in TimeEncoding(4, TimeMode.FIXED).parameters() if p.requires_grad]


def test_a_step_on_log_frequencies_changes_them_by_a_factor():
    encoding = TimeEncoding(10, TimeMode.LOG_LEARNED)
    before = encoding.frequency.detach().clone()
    with torch.no_grad():
        encoding.held_frequency.add_(1e-3)
    torch.testing.assert_close(encoding.frequency.detach(), before * 1.0010005, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mode", [TimeMode.LEARNED, TimeMode.LOG_LEARNED])
def test_gradcheck(mode):
    encoding = TimeEncoding(3, mode).double()
    delta = torch.tensor([[0.0, 0.5], [-1.5, 7.0]], dtype=torch.float64)

    def function(held, phase):
        return torch.func.functional_call(encoding, {"held_frequency": held, "phase": phase}, (delta,))

    assert torch.autograd.gradcheck(function, tuple(encoding.parameters()))


@pytest.mark.parametrize("mode", list(TimeMode))
def test_nanoseconds_are_learned_from_like_seconds(mode):
    seconds, nanoseconds = TimeEncoding(20, mode), TimeEncoding(20, mode, unit=1e9)
    delta = torch.rand(50, generator=torch.Generator().manual_seed(0)) * 1e4
    upstream = torch.randn(50, 20, generator=torch.Generator().manual_seed(1))
    found, wanted = nanoseconds(delta * 1e9), seconds(delta)
    assert (found - wanted).abs().max() < 1e-3  # float32 keeps 10^13 nanoseconds to half a millisecond
    if mode is not TimeMode.FIXED:
        for out in (found, wanted):
            (out * upstream).sum().backward()
        for mine, theirs in zip(nanoseconds.parameters(), seconds.parameters(), strict=True):
            assert (mine.grad - theirs.grad).norm() < 0.01 * theirs.grad.norm()
