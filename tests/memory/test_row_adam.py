"""Sums of row gradients, and Adam on the rows that a step touches."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.memory.co_trained import RowSum, RowTable


def new_table(num_nodes, dim):
    return RowTable(
        *(np.zeros((num_nodes, dim), np.float32) for _ in range(3)), np.zeros(num_nodes, np.int64)
    )


def distinct_rows(rng, num_nodes, count, dim=3):
    nodes = rng.choice(num_nodes, count, replace=False).astype(np.int64)
    return nodes, rng.normal(size=(count, dim)).astype(np.float32)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_shares_add_up_what_all_parts_have_of_their_nodes(seed, num_parts, num_shares):
    rng, num_nodes = np.random.default_rng(seed), 13
    parts = [distinct_rows(rng, num_nodes, rng.integers(0, num_nodes + 1)) for _ in range(num_parts)]
    expected = {}
    for nodes, rows in parts:
        for node, row in zip(nodes.tolist(), rows, strict=True):
            expected[node] = expected[node] + row if node in expected else row
    summer, found = RowSum(num_nodes), {}
    for share in range(num_shares):
        nodes, sums = summer.of(parts, share, num_shares)
        assert all(node % num_shares == share for node in nodes.tolist())
        assert len(set(nodes.tolist())) == len(nodes)
        found |= dict(zip(nodes.tolist(), sums, strict=True))
    assert found.keys() == expected.keys()
    for node, row in expected.items():
        assert np.array_equal(found[node], row), "added in the order of the parts, bit for bit"


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.5]))
@settings(max_examples=20, deadline=None)
def test_a_row_moves_as_if_only_its_own_steps_had_been_taken(seed, decay):
    """Each row equals dense AdamW of its own over the steps that touched it; the others keep every bit."""
    rng, table, rate = np.random.default_rng(seed), new_table(7, 3), 0.01
    alone = [torch.nn.Parameter(torch.zeros(3)) for _ in range(7)]
    optimisers = [torch.optim.AdamW([row], rate, weight_decay=decay) for row in alone]
    for _ in range(6):
        nodes, gradients = distinct_rows(rng, 7, rng.integers(0, 5))
        untouched = np.delete(table.rows, nodes, axis=0).tobytes()
        table.update((nodes, gradients), 0.25, rate, decay)
        assert np.delete(table.rows, nodes, axis=0).tobytes() == untouched
        for node, gradient in zip(nodes.tolist(), gradients, strict=True):
            alone[node].grad = torch.from_numpy(gradient) / 4
            optimisers[node].step()
    expected = np.array([row.detach().numpy() for row in alone])
    assert np.allclose(table.rows, expected, rtol=1e-5, atol=1e-7)
    steps = [
        int(o.state[row]["step"]) if row in o.state else 0 for o, row in zip(optimisers, alone, strict=True)
    ]
    assert table.touched.tolist() == steps
