"""Sums over ranks, on one node and on several, which groups of ranks stand for."""

import numpy as np
import pytest
from mpi4py import MPI

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.gradients import VectorSum


class Nodes:
    """A communicator whose ranks lie on nodes of ``per_node`` ranks each, as far as it tells."""

    def __init__(self, comm, nodes):
        self._comm, self._nodes = comm, nodes

    def Split_type(self, kind, key):  # noqa: N802
        assert kind == MPI.COMM_TYPE_SHARED
        return self._comm.Split(self._nodes[self._comm.rank], key)

    def __getattr__(self, name):
        return getattr(self._comm, name)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    ("nodes", "ranks"),
    [
        pytest.param(nodes, len(nodes), marks=pytest.mark.ranks(len(nodes)))
        for nodes in ([0], [0, 0], [0, 1], [0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 2, 3])
    ],
)
def test_vectors_are_summed_over_nodes(comm, on_all_ranks, nodes, ranks, size):
    def body():
        vectors = np.random.default_rng(5).normal(size=(3, ranks, size)).astype(np.float32)
        summed = VectorSum(size, Nodes(comm, nodes), 20, "the others")
        assert not summed.own.any()
        for step, mine in enumerate(vectors[:, comm.rank]):
            summed.own[:] = mine
            summed.sum()
            assert np.allclose(summed.total, vectors[step].sum(axis=0), atol=1e-6)
            assert np.array_equal(summed.own, mine), "own vectors are left alone"
            totals = comm.allgather(summed.total.tobytes())
            assert len(set(totals)) == 1, "the same bits on every rank"
        sent = comm.allreduce(summed.sent_bytes)
        assert sent == 3 * 4 * size * (len(set(nodes)) if len(set(nodes)) > 1 else 0)
        summed.free()

    on_all_ranks(body)


@pytest.mark.ranks(4)
def test_nodes_of_unequal_size_are_refused(comm, on_all_ranks):
    def body():
        with pytest.raises(GridError, match=r"the same number of trainers, they have \[1, 3\]"):
            VectorSum(5, Nodes(comm, [0, 0, 0, 1]), 20, "the others")

    on_all_ranks(body)
