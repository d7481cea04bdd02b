from dataclasses import replace

import pytest
import torch
from model_oracles import TINY, in_float64, random_inputs, textbook_memory, textbook_model

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.model.inputs import EventFeatures, ModelDims
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.model.time_encoding import TimeMode

WIDTHS = {
    "edge_and_node_features": replace(TINY, memory=20, time=12, embedding=24, edge=17, node=5),
    "no_features": ModelDims(memory=20, time=12, embedding=24, num_heads=3),
    "one_head": ModelDims(memory=8, time=16, embedding=10, edge=1, num_heads=1),
}


def embed(model, nodes, graph):
    return model.embed(model.represent(model.update_memory(nodes), nodes), graph)


def gradients_of(model, outputs, leaf=None):
    """Gradients of a random weighting of the outputs: of their plain sum, LayerNorm leaves nothing."""
    upstream = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1)).to(outputs.dtype)
    parameters = {name: p for name, p in model.named_parameters() if not name.startswith("link_head")}
    sources = list(parameters.values()) + ([] if leaf is None else [leaf])
    gradients = torch.autograd.grad((outputs * upstream).sum(), sources, allow_unused=True)
    return dict(zip([*parameters, "leaf"], gradients, strict=False))


def assert_close(found, wanted, what):
    if wanted is None:
        assert found is None, what
        return
    scale = max(float(wanted.detach().abs().max()), 1e-3)
    assert float((found - wanted).detach().abs().max()) <= 1e-5 * scale, what


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dims", WIDTHS.values(), ids=WIDTHS.keys())
def test_folded_model_is_the_textbook_model(dims, dropout):
    model = Tgn(dims, dropout, seed=3)
    nodes, graph = random_inputs(dims, num_nodes=30, num_roots=40, num_slots=5, longest=1e3, dropout=dropout)
    embeddings = embed(model, nodes, graph)
    gradients = gradients_of(model, embeddings)
    oracle = Tgn(dims, dropout, seed=3).double()
    expected = textbook_model(oracle, in_float64(nodes), in_float64(graph))
    assert_close(embeddings, expected, "embeddings")
    for name, wanted in gradients_of(oracle, expected).items():
        assert_close(gradients[name], wanted, name)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("dims", [TINY, replace(TINY, edge=0, node=0, num_heads=1)])
def test_gradcheck(dims, dropout):
    model = Tgn(dims, dropout, seed=1, time_mode=TimeMode.LOG_LEARNED).double()
    nodes, graph = map(in_float64, random_inputs(dims, longest=3.0, dropout=dropout))
    with torch.no_grad():
        model.attention.out.bias.add_(2.0)  # keeps ReLU's kink out of the finite differences

    def function(*weights):
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(Whole(model), named, (nodes, graph))

    names = ["model." + name for name, p in model.named_parameters() if not name.startswith("link_head")]
    weights = [p for name, p in model.named_parameters() if not name.startswith("link_head")]
    assert torch.autograd.gradcheck(function, tuple(weights), fast_mode=True)


class Whole(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, nodes, graph):
        return embed(self.model, nodes, graph)


def test_memory_is_a_gru_cell_where_there_is_mail_and_untouched_elsewhere():
    model, (nodes, _) = Tgn(TINY, seed=2), random_inputs(TINY)
    memory = model.update_memory(nodes)
    without = sorted(set(range(len(memory))) - set(nodes.mail_rows.tolist()))
    assert len(without) == 2
    assert torch.equal(memory[without], nodes.state[without, : TINY.memory])
    torch.testing.assert_close(memory, textbook_memory(model, nodes), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mailed", [0, 7])
def test_memory_with_no_mail_and_with_mail_for_all(mailed):
    model, (nodes, _) = Tgn(TINY, seed=2), random_inputs(TINY)
    nodes = replace(
        nodes,
        mail_rows=torch.arange(mailed),
        mail_elapsed=torch.ones(mailed),
        mail_edges=EventFeatures(torch.ones(1, TINY.edge), torch.zeros(mailed, dtype=torch.int64)),
    )
    memory = model.update_memory(nodes)
    torch.testing.assert_close(memory, textbook_memory(model, nodes), rtol=0, atol=1e-6)
    memory.sum().backward()
    assert (model.memory_update.mail_weight.grad.abs().max() > 0) == (mailed > 0)


def test_slots_beyond_the_count_change_nothing():
    model, (nodes, graph) = Tgn(TINY, seed=4), random_inputs(TINY)
    h = nodes.state[:, : TINY.memory].clone().requires_grad_()
    beyond = torch.arange(3) >= graph.counts.unsqueeze(1)
    assert beyond.any()
    other = replace(
        graph,
        neighbors=torch.where(beyond, 0, graph.neighbors),
        elapsed=torch.where(beyond, 1e9, graph.elapsed),
        edges=replace(graph.edges, rows=torch.where(beyond, 0, graph.edges.rows)),
    )
    results = []
    for case in (graph, other):
        embeddings = model.embed(h, case)
        results.append((embeddings, gradients_of(model, embeddings, h)))
    assert torch.equal(results[0][0], results[1][0])
    for name, gradient in results[0][1].items():
        assert gradient is None or torch.equal(gradient, results[1][1][name]), name


def test_root_without_neighbours_sees_itself_only():
    model = Tgn(TINY, seed=4)
    nodes, graph = random_inputs(TINY)
    h = model.represent(nodes.state[:, : TINY.memory], nodes)
    embeddings = model.embed(h, replace(graph, counts=torch.zeros_like(graph.counts)))
    layer, attended = model.attention, torch.zeros(len(graph.roots), TINY.embedding)
    itself = torch.cat([attended, h[graph.roots]], 1)
    torch.testing.assert_close(embeddings, layer.norm(layer.out(itself).relu()))
    gradients = gradients_of(model, embeddings)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values() if gradient is not None)
    assert gradients["attention.key.weight"].abs().max() == 0 < gradients["attention.out.weight"].abs().max()


def test_evaluation_gets_the_same_embeddings():
    model = Tgn(TINY, seed=4)
    nodes, graph = random_inputs(TINY)
    with torch.no_grad():
        alone = embed(model, nodes, graph)
    assert torch.equal(alone, embed(model, nodes, graph))


def test_two_backward_passes_are_bit_equal():
    dims = WIDTHS["edge_and_node_features"]
    nodes, graph = random_inputs(dims, num_nodes=50, num_roots=300, num_slots=6, dropout=0.2)
    runs = []
    for _ in range(2):
        model = Tgn(dims, 0.2, seed=5)
        runs.append(gradients_of(model, embed(model, nodes, graph)))
    for name, gradient in runs[0].items():
        assert gradient.abs().max() > 0, name
        assert torch.equal(gradient, runs[1][name]), name


def test_initial_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    first = Tgn(TINY, seed=9).state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second, third = Tgn(TINY, seed=9).state_dict(), Tgn(TINY, seed=10).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["attention.key.weight"], third["attention.key.weight"])


def test_weights_survive_a_state_dict():
    saved = Tgn(TINY, seed=1).state_dict()
    other = Tgn(TINY, seed=2)
    other.load_state_dict(saved)
    nodes, _ = random_inputs(TINY)
    assert torch.equal(other.update_memory(nodes), Tgn(TINY, seed=1).update_memory(nodes))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"embedding": 5}, "multiple of 2"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"edge": -1}, "edge must not be negative"),
    ],
)
def test_wrong_widths_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        ModelDims(**wrong)


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_wrong_dropout_is_refused(dropout):
    with pytest.raises(ConfigError, match="dropout"):
        Tgn(TINY, dropout, seed=0)
