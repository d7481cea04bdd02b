import pytest
import torch
from model_oracles import random_inputs
from threadpoolctl import threadpool_info

from disttgl_hpc.model import products
from disttgl_hpc.model.inputs import ModelDims
from disttgl_hpc.model.products import (
    bfloat16_product,
    choose_product,
    numpy_product,
    on_all_threads,
    prepare_process,
    times,
    times_transposed,
    torch_product,
)
from disttgl_hpc.model.tgn import Tgn

SHAPES = [((5, 7), (7, 3)), ((2, 5, 7), (2, 7, 3)), ((0, 7), (7, 3)), ((5, 1), (1, 1))]


def normal(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("product", [torch_product, numpy_product])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shapes", SHAPES)
def test_products_and_their_gradients_are_those_of_torch(product, transposed, shapes):
    a, b = (normal(*shape).requires_grad_() for shape in shapes)
    second = b.detach().transpose(-1, -2).contiguous().requires_grad_() if transposed else b
    found = (times_transposed if transposed else times)(a, second, product)
    torch.testing.assert_close(found, a @ b)
    upstream = normal(*found.shape)
    mine = torch.autograd.grad(found, [a, second], upstream)
    theirs = torch.autograd.grad(a @ b, [a, b], upstream)
    torch.testing.assert_close(mine[0], theirs[0])
    torch.testing.assert_close(mine[1].transpose(-1, -2) if transposed else mine[1], theirs[1])


def test_slices_of_weights_need_no_copy():
    weight, x = normal(6, 10), normal(4, 3)
    torch.testing.assert_close(numpy_product(x, weight[:, 2:5].T), x @ weight[:, 2:5].T)


def test_bfloat16_keeps_two_digits_and_the_dtype():
    a, b = normal(40, 50), normal(50, 30)
    found = bfloat16_product(a, b)
    assert found.dtype == torch.float32
    error = (found - a @ b).abs().max() / (a @ b).abs().max()
    assert 1e-5 < error < 2e-2


@pytest.mark.parametrize(
    ("first", "second"), [((700, 600), (600, 530)), ((2, 1800, 37), (2, 37, 5)), ((40, 1800), (1800, 530))]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_bfloat16_pads_long_sides_and_loses_nothing(first, second, transposed):
    a, b = normal(*first).requires_grad_(), normal(*second)
    b = (b.transpose(-1, -2).contiguous() if transposed else b).requires_grad_()
    upstream = normal(*first[:-1], second[-1])
    results = []
    for product in (bfloat16_product, torch_product):
        out = (times_transposed if transposed else times)(a, b, product)
        results.append([out.detach(), *torch.autograd.grad(out, [a, b], upstream)])
    for rounded, exact in zip(*results, strict=True):
        assert rounded.shape == exact.shape
        assert 1e-4 < (rounded - exact).norm() / exact.norm() < 1e-2


@pytest.mark.parametrize(
    ("amd", "openblas", "device", "wanted"),
    [
        (True, True, "cpu", numpy_product),
        (True, False, "cpu", torch_product),
        (False, True, "cpu", torch_product),
        (True, True, "cuda", torch_product),
    ],
)
def test_the_library_goes_by_the_processor(monkeypatch, amd, openblas, device, wanted):
    monkeypatch.setattr(products, "_torch_has_mkl", lambda: True)
    monkeypatch.setattr(products, "_is_amd", lambda: amd)
    monkeypatch.setattr(products, "_numpy_has_openblas", lambda: openblas)
    assert choose_product("float32", device) is wanted
    assert choose_product("bfloat16", device) is bfloat16_product


def test_threads_are_those_asked_for_and_no_library_brings_more():
    before = torch.get_num_threads()
    try:
        prepare_process(2)
        assert torch.get_num_threads() == 2
        blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
        assert all(library["num_threads"] == 1 for library in blas)
        a, b = torch.randn(2, 5, 7), torch.randn(2, 7, 3)
        assert torch.allclose(on_all_threads(numpy_product, a, b), a @ b, atol=1e-5)
    finally:
        prepare_process(before)


def test_precision_changes_products_only_by_rounding():
    dims = ModelDims(memory=20, time=12, embedding=24, edge=17)
    nodes, graph = random_inputs(dims, num_nodes=30, num_roots=40, num_slots=5, longest=1e3)
    found = []
    for product in (torch_product, bfloat16_product):
        model = Tgn(dims, seed=3, product=product)
        embeddings = model.embed(model.update_memory(nodes), graph)
        embeddings[:, 0].sum().backward()
        assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None)
        found.append(embeddings.detach())
    error = (found[0] - found[1]).abs()
    assert 1e-4 < error.mean() < 0.05
