"""The compiled loops against the same functions by torch in float64, with all gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_oracles import in_float64, random_inputs

from disttgl_hpc.model.attention import attend, attended_by_torch
from disttgl_hpc.model.inputs import ModelDims
from disttgl_hpc.model.loops import exponential, read_features, sigmoid
from disttgl_hpc.model.products import torch_product
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.model.time_encoding import TimeEncoding

WIDTHS = st.builds(
    ModelDims,
    memory=st.integers(1, 70),
    time=st.integers(1, 70),
    embedding=st.just(6),
    edge=st.sampled_from([0, 1, 5, 64]),
    node=st.just(0),
    num_heads=st.integers(1, 3),
)
STORED = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int8])


def stored_as(features, dtype):
    """The same features in a table of another dtype; int8 with a scale."""
    if features is None:
        return None
    scale = torch.full((features.table.shape[1],), 0.02) if dtype == torch.int8 else None
    table = (features.table * 30).round().clamp(-127, 127) if dtype == torch.int8 else features.table
    return replace(features, table=table.to(dtype), scale=scale)


def assert_close(found, wanted, what, least=0.1):
    scale = max(float(wanted.abs().max()), least)
    assert float((found - wanted).abs().max()) <= 1e-5 * scale, what


def results(function, inputs, time):
    """What ``function`` makes of the inputs, and the gradients of a random weighting of it."""
    inputs = [each.detach().requires_grad_() for each in inputs]
    out = function(*inputs, time)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out.dtype)
    named = {"in": inputs, "time": list(time.parameters())}
    gradients = torch.autograd.grad(
        (out * upstream).sum(), [each for group in named.values() for each in group]
    )
    return [out.detach(), *gradients]


def draw_weights(dims, rows, seed):
    """Weights (H, rows, d + T + e + 1) for what the loops put together."""
    width = dims.memory + dims.time + dims.edge + 1
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(dims.num_heads, rows, width, generator=generator) / width**0.5


@settings(max_examples=30, deadline=None)
@given(
    WIDTHS,
    STORED,
    st.sampled_from([0.0, 0.3]),
    st.integers(1, 12),
    st.sampled_from([1e6, 1e10]),
    st.integers(0, 100),
)
def test_compiled_attention_is_attention_by_torch(dims, dtype, dropout, num_slots, longest, seed):
    sizes = {"num_nodes": 9, "num_roots": 14, "num_slots": num_slots, "longest": longest}
    _, graph = random_inputs(dims, **sizes, dropout=dropout, seed=seed)
    graph = replace(graph, edges=stored_as(graph.edges, dtype))
    h = torch.randn(9, dims.memory, generator=torch.Generator().manual_seed(seed))
    query, value = draw_weights(dims, 5, seed), draw_weights(dims, 3, seed + 1)
    nodes = torch.arange(14) % 5
    found = results(
        lambda *given: attend(*given[:3], nodes, graph, given[3], dropout, torch_product),
        [h, query, value],
        TimeEncoding(dims.time),
    )
    wanted = results(
        lambda *given: attended_by_torch(
            *given[:3], nodes, in_float64(graph), given[3], dropout, torch_product
        ),
        [h.double(), query.double(), value.double()],
        TimeEncoding(dims.time).double(),
    )
    names = "attended", "h", "query", "value", "frequency", "phase"
    for mine, theirs, what in zip(found, wanted, names, strict=True):
        assert_close(mine, theirs, what)


@settings(max_examples=30, deadline=None)
@given(WIDTHS, STORED, st.integers(2, 12), st.integers(0, 100))
def test_compiled_memory_update_is_the_update_by_torch(dims, dtype, num_nodes, seed):
    nodes, _ = random_inputs(dims, num_nodes=num_nodes, longest=100, seed=seed)
    nodes = replace(nodes, mail_edges=stored_as(nodes.mail_edges, dtype))
    model, oracle = Tgn(dims, seed=seed), Tgn(dims, seed=seed).double()
    memory = model.update_memory(nodes)
    expected = oracle.memory_update.updated_by_torch(in_float64(nodes), oracle.time_encoding)
    assert_close(memory.detach(), expected.detach(), "memory")
    without = sorted(set(range(num_nodes)) - set(nodes.mail_rows.tolist()))
    assert torch.equal(memory[without], nodes.state[without, : dims.memory])
    upstream = torch.randn(memory.shape, generator=torch.Generator().manual_seed(1))
    (memory * upstream).sum().backward()
    (expected * upstream.double()).sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), oracle.parameters(), strict=True):
        if theirs.grad is not None:
            # The terms of a gradient may cancel: with one frequency, to a quarter of what each of them rounds at.
            assert_close(mine.grad, theirs.grad, name, least=1.0)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_threads_change_sums_by_rounding_only_and_repeat_bit_for_bit(threads):
    dims = ModelDims(memory=20, time=12, embedding=24, edge=17)
    nodes, graph = random_inputs(dims, num_nodes=50, num_roots=300, num_slots=6, longest=1.0, dropout=0.2)

    def gradients(number):
        threads(number)
        model = Tgn(dims, 0.2, seed=5)
        embeddings = model.embed(model.update_memory(nodes), graph)
        embeddings.backward(torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(1)))
        return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    alone, three, again = gradients(1), gradients(3), gradients(3)
    for name, gradient in alone.items():
        assert_close(
            three[name], gradient.double(), name, least=10.0
        )  # softmax leaves the keys' bias nothing
        assert torch.equal(three[name], again[name]), name
    assert any(not torch.equal(three[name], alone[name]) for name in alone)


def test_the_map_of_a_table_is_never_gathered_by_the_loops(monkeypatch):
    dims = ModelDims(memory=4, time=3, embedding=4, edge=2)
    nodes, graph = random_inputs(dims)
    model = Tgn(dims, seed=0)
    monkeypatch.setattr("disttgl_hpc.model.inputs.EventFeatures.gather", lambda *_: pytest.fail("gathered"))
    model.embed(model.update_memory(nodes), graph)


def test_every_float16_is_widened_exactly():
    halves = np.arange(2**16, dtype=np.uint16)
    halves = halves[np.isfinite(halves.view(np.float16))]
    out = np.zeros((2, 3 + len(halves)), np.float32)
    read_features(halves[np.newaxis], 0, np.empty(0, np.float32), out, 1, 3)
    assert not out[0].any()
    assert not out[:, :3].any()
    out = out[1, 3:]
    np.testing.assert_array_equal(out, halves.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.signbit(out), np.signbit(halves.view(np.float16)))


def test_exponential_is_exact_to_float32_and_keeps_nan():
    x = np.linspace(-87, 87, 10001, dtype=np.float32)
    found = np.array([exponential(value) for value in x], np.float64)
    np.testing.assert_allclose(found, np.exp(x.astype(np.float64)), rtol=2e-7 + 87 * 2.0**-24)
    assert 0 < exponential(np.float32(-np.inf)) < 1e-37
    assert np.isnan(exponential(np.float32(np.nan)))


def test_sigmoid_is_exact_to_float32_and_keeps_nan():
    x = np.concatenate([np.linspace(-110, 110, 10001), [1e30, -1e30, np.inf, -np.inf]]).astype(np.float32)
    with np.errstate(over="ignore"):
        wanted = 1 / (1 + np.exp(-x.astype(np.float64)))
    found = np.array([sigmoid(value) for value in x])
    assert np.abs(found - wanted).max() < 2e-7
    assert np.isnan(sigmoid(np.float32(np.nan)))
