"""Which of the ranks that were started take part, where a grid needs fewer than all of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from mpi4py import MPI

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import GridShape

Nodes = tuple[tuple[int, ...], ...]
"""World ranks of each node."""


def nodes_of(world: MPI.Intracomm) -> Nodes:
    """Ranks of ``world`` by node, ascending. Collective."""
    node_comm = world.Split_type(MPI.COMM_TYPE_SHARED, world.rank)
    homes = world.allgather(node_comm.bcast(world.rank))
    node_comm.Free()
    return tuple(
        tuple(rank for rank, home in enumerate(homes) if home == first) for first in sorted(set(homes))
    )


def choose_ranks(nodes: Nodes, shape: GridShape) -> Nodes:
    """Ranks for the trainers and daemons of ``shape``, taken evenly from as many ``nodes`` as it can use.

    A single rank does for 1×1×1. Raises GridError, the same on every rank that asks, where nothing fits.
    """
    if shape.num_trainers == 1 and sum(map(len, nodes)) == 1:
        return nodes
    for count in range(len(nodes), 0, -1):
        if shape.memory % count:
            continue  # a replica cannot be shared by nodes
        wanted = shape.num_trainers // count + 1
        large = [node for node in nodes if len(node) >= wanted]
        if len(large) >= count:
            return tuple(node[:wanted] for node in large[:count])
    raise GridError(_misfit([len(node) for node in nodes], shape))


def _misfit(ranks: Sequence[int], shape: GridShape) -> str:
    """Rule, numbers and remedy for a grid that no part of the nodes can hold."""
    count = gcd(shape.memory, len(ranks))
    wanted = shape.num_trainers // count + 1
    launcher = f"mpiexec -n {wanted}" if count == 1 else f"srun --nodes={count} --ntasks-per-node={wanted}"
    where = "on one node" if count == 1 else f"on each of {count} nodes"
    return (
        f"{shape} needs {wanted - 1} trainer{'' if wanted == 2 else 's'} and a daemon, {wanted} ranks, {where}; "
        f"started were {', '.join(map(str, ranks))} on the node{'' if len(ranks) == 1 else 's'}: "
        f"{launcher} disttgl bench scaling …, or leave {shape.option} out of --grids"
    )
