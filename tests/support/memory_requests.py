"""Requests that trainers make to a small node memory, and the memory in plain numpy."""

import numpy as np
import pytest

from disttgl_hpc.grid.schedule import GridShape, OperationKind, replica_offset
from disttgl_hpc.memory.node_memory import MemoryRun, MemorySizes

SIZES = MemorySizes(num_nodes=40, dim_memory=3, read_rows=25, write_rows=10)
TIMEOUT_S = 20


def memory_run(num_batches, num_steps, **options):
    """Run on a memory of SIZES."""
    return MemoryRun(
        sizes=SIZES, num_batches=num_batches, num_steps=num_steps, **{"timeout_s": TIMEOUT_S, **options}
    )


def request(replica, counter, part, kind):
    """Nodes and rows of one request, anything from none to as many as fit, the same wherever they are drawn."""
    rng = np.random.default_rng([replica, counter, part, kind])
    room = SIZES.read_rows if kind == OperationKind.READ else SIZES.write_rows
    nodes = rng.permutation(SIZES.num_nodes)[: rng.integers(0, room + 1)]
    return nodes, rng.normal(size=(len(nodes), SIZES.dim_row)).astype(np.float32)


def emulate(replica, shape, num_batches, steps):
    """One replica in plain numpy: {(counter, part): rows read}, {counter: memory after its writes}."""
    memory = np.zeros((SIZES.num_nodes, SIZES.dim_row), np.float32)
    reads, states = {}, {}
    for counter in range(steps):
        if (counter + replica_offset(replica, shape, num_batches)) % num_batches == 0:
            memory[:] = 0
        for part in range(shape.minibatch):
            reads[counter, part] = memory[request(replica, counter, part, OperationKind.READ)[0]]
        for part in range(shape.minibatch):
            nodes, rows = request(replica, counter, part, OperationKind.WRITE)
            memory[nodes] = rows
        states[counter] = memory.copy()
    return reads, states


def case(ranks, shape, num_nodes=1):
    return pytest.param(
        GridShape.parse(shape), num_nodes, marks=pytest.mark.ranks(ranks), id=f"{shape}-{num_nodes}"
    )
