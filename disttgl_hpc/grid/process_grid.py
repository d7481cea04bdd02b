"""The i×j×k grid over the started ranks: trainers, memory daemons, and the communicators of each axis.

The arithmetic is pure; only :class:`Grid` uses MPI. The i·j trainers of a replica are on one node, because
they share its memory; replicas are spread evenly; each node's last rank is its memory daemon.
``choose_ranks`` selects the ranks that take part if a grid needs fewer than were started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import cast

from mpi4py import MPI

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.collectives import (
    DEFAULT_TIMEOUT_S,
    Communicator,
    allgather,
    bcast,
    dup,
    free,
    node_comm_of,
    split,
)
from disttgl_hpc.grid.schedule import Coordinates, GridShape

_WHAT = "all ranks to form the grid"


@dataclass(frozen=True)
class Placement:
    """A grid laid over nodes. Trainers are numbered replica by replica, lane by lane, slice by slice.

    trainers: world rank of each trainer. daemons: world rank of each node's daemon, none for a single rank.
    """

    shape: GridShape
    trainers: tuple[int, ...]
    daemons: tuple[int, ...]

    @property
    def replicas_per_node(self) -> int:
        """Replicas whose memory each node holds, k / number of nodes."""
        return self.shape.memory // max(1, len(self.daemons))


def coordinates_of(trainer: int, shape: GridShape) -> Coordinates:
    """Place of the trainer with this number."""
    lane, minibatch = divmod(trainer % shape.trainers_per_replica, shape.minibatch)
    return Coordinates(minibatch, lane, trainer // shape.trainers_per_replica)


def place(nodes: Sequence[Sequence[int]], shape: GridShape | None) -> Placement:
    """Lay a grid over ``nodes``, the world ranks of each node; no shape means 1×1×(trainers).

    Raises GridError, the same on every rank that asks, with numbers and two command lines that would work.
    """
    ranks = [len(node) for node in nodes]
    if sum(ranks) == 1 and shape in (None, GridShape(1, 1, 1)):
        return Placement(GridShape(1, 1, 1), (nodes[0][0],), ())
    if shape is None and sum(ranks) == len(ranks):
        wanted = GridShape(1, 1, len(ranks))
        raise GridError(
            f"every node's last rank is its memory daemon, so {len(ranks)} nodes with one rank each have no "
            f"trainer: {_remedies(ranks, wanted)}"
        )
    shape = shape or GridShape(1, 1, sum(ranks) - len(ranks))
    problem = _misfit(ranks, shape)
    if problem:
        raise GridError(f"{problem}: {_remedies(ranks, shape)}")
    trainers = tuple(rank for node in nodes for rank in node[:-1])
    return Placement(shape, trainers, tuple(node[-1] for node in nodes))


def check_slices(shape: GridShape, num_events: int) -> None:
    """Refuse more slices than training events: trainers would never see one. Raises GridError."""
    if shape.minibatch > num_events:
        fewer = GridShape(max(1, num_events), shape.epoch, shape.memory)
        raise GridError(
            f"{shape} cuts a batch into {shape.minibatch} slices, the stream has {num_events} training "
            f"events: {_command(1, fewer.num_trainers + 1, fewer)}, or {_command(1, 2, GridShape(1, 1, 1))}"
        )


def _misfit(ranks: Sequence[int], shape: GridShape) -> str:
    """Why the grid does not fit nodes with these numbers of ranks; empty if it fits."""
    trainers, daemons = shape.num_trainers, len(ranks)
    if sum(ranks) != trainers + daemons:
        return (
            f"{shape} = {_count(trainers, 'trainer')} and {_count(daemons, 'daemon')} (one per node) need "
            f"{trainers + daemons} ranks, started were {sum(ranks)}"
        )
    if shape.memory % daemons:
        return (
            f"{shape} has {_count(shape.memory, 'replica')}, each of whose {shape.trainers_per_replica} "
            f"trainers share one node, and they cannot be spread evenly over {daemons} nodes"
        )
    if len(set(ranks)) > 1:
        counts = ", ".join(map(str, ranks))
        return f"{shape} needs {trainers // daemons + 1} ranks on every node, the nodes have {counts}"
    return ""


def _remedies(ranks: Sequence[int], shape: GridShape) -> str:
    """Two command lines that would work: the same grid on other ranks, another grid on about these ranks."""
    nodes = gcd(shape.memory, len(ranks))
    same_grid = _command(nodes, shape.num_trainers // nodes + 1, shape)
    per_node = max(1, min(ranks) - 1)
    candidates = [(shape.minibatch, shape.epoch), (1, shape.epoch), (shape.minibatch, 1), (1, 1)]
    minibatch, epoch = next((i, j) for i, j in candidates if per_node % (i * j) == 0)
    fitting = GridShape(minibatch, epoch, len(ranks) * per_node // (minibatch * epoch))
    same_ranks = _command(len(ranks), per_node + 1, fitting)
    if same_ranks == same_grid:
        same_ranks = _command(1, 2, GridShape(1, 1, 1))
    return f"{same_grid}, or {same_ranks}"


def _command(nodes: int, ranks_per_node: int, shape: GridShape) -> str:
    """Command line that starts a grid on so many equal nodes."""
    launcher = f"srun --nodes={nodes} --ntasks-per-node={ranks_per_node}"
    if nodes == 1:
        launcher = f"mpiexec -n {ranks_per_node}"
    return f"{launcher} disttgl train … --grid {shape.option}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Grid:
    """One rank's view of the grid, with the communicators of each axis; :meth:`free` them at the end.

    world: all ranks. node_comm: a node's ranks, the daemon last. node_trainer_comm: a node's trainers.
    leader_comm: the first trainer of every node. trainer_comm: all trainers, in their numbers' order.
    minibatch_comm, epoch_comm, memory_comm: the trainers that differ along that axis only (sizes i, j, k).
    replica_comm: the i·j trainers of a replica. Daemons have world and node_comm; the rest are COMM_NULL.
    timeout_s: deadline of a wait for another rank, in seconds.
    trainer: this trainer's number, −1 for a daemon. node: number of this node.
    """

    placement: Placement
    trainer: int
    node: int
    world: MPI.Intracomm
    node_comm: MPI.Intracomm
    trainer_comm: MPI.Intracomm
    minibatch_comm: MPI.Intracomm
    epoch_comm: MPI.Intracomm
    memory_comm: MPI.Intracomm
    replica_comm: MPI.Intracomm
    node_trainer_comm: MPI.Intracomm
    leader_comm: MPI.Intracomm
    timeout_s: float

    @classmethod
    def create(
        cls,
        world: Communicator,
        shape: GridShape | None = None,
        node_comm: Communicator | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> Grid:
        """Lay ``shape`` over ``world``. Collective; raises the same GridError on every rank.

        node_comm: the ranks that share memory, by default as reported by MPI; it must order its ranks as
        ``world`` does, and the grid frees it.
        """
        node_comm = cast(MPI.Intracomm, node_comm or node_comm_of(world, timeout_s))
        first_of_node = bcast(node_comm, world.rank, timeout_s, _WHAT)
        homes = allgather(world, first_of_node, timeout_s, _WHAT)
        firsts = sorted(set(homes))
        nodes = [[rank for rank in range(world.size) if homes[rank] == first] for first in firsts]
        try:
            placement = place(nodes, shape)
        except GridError:
            free([node_comm], timeout_s, _WHAT)
            raise
        node = firsts.index(first_of_node)
        is_trainer = world.rank in placement.trainers
        trainer = placement.trainers.index(world.rank) if is_trainer else -1
        at = coordinates_of(trainer, placement.shape)
        i, j = placement.shape.minibatch, placement.shape.epoch
        own_world = cast(MPI.Intracomm, dup(world, timeout_s, _WHAT))

        def trainers_of(color: int) -> MPI.Intracomm:
            """Trainers of one color, in their numbers' order; nothing for a daemon."""
            color = color if is_trainer else MPI.UNDEFINED
            return cast(MPI.Intracomm, split(own_world, color, timeout_s, _WHAT, key=trainer))

        return cls(
            placement=placement,
            trainer=trainer,
            node=node,
            world=own_world,
            node_comm=node_comm,
            trainer_comm=trainers_of(0),
            minibatch_comm=trainers_of(at.memory * j + at.epoch),
            epoch_comm=trainers_of(at.memory * i + at.minibatch),
            memory_comm=trainers_of(at.epoch * i + at.minibatch),
            replica_comm=trainers_of(at.memory),
            node_trainer_comm=trainers_of(node),
            leader_comm=trainers_of(0 if node_comm.rank == 0 else MPI.UNDEFINED),
            timeout_s=timeout_s,
        )

    @property
    def shape(self) -> GridShape:
        """Degrees of the three axes."""
        return self.placement.shape

    @property
    def is_daemon(self) -> bool:
        """Whether this rank serves memory instead of training."""
        return self.trainer < 0

    @property
    def is_serial(self) -> bool:
        """Whether a single process does everything, without a daemon."""
        return not self.placement.daemons

    @property
    def coordinates(self) -> Coordinates:
        """Place of this trainer. Raises ValueError on a daemon, which has none."""
        if self.is_daemon:
            raise ValueError("a memory daemon has no place in the grid; ask is_daemon first")
        return coordinates_of(self.trainer, self.shape)

    @property
    def local_trainer(self) -> int:
        """Number of this trainer among those of its node, by which it picks a device."""
        return self.node_comm.rank

    @property
    def local_replicas(self) -> range:
        """Replicas whose memory this node holds."""
        count = self.placement.replicas_per_node
        return range(self.node * count, (self.node + 1) * count)

    @property
    def role(self) -> str:
        """The role of this rank as text."""
        if self.is_daemon:
            return f"daemon of node {self.node}"
        at = self.coordinates
        return f"trainer of replica {at.memory}, lane {at.epoch}, slice {at.minibatch}"

    def free(self) -> None:
        """Release the communicators. Collective. Raises DeadlineError."""
        comms = [
            self.world,
            self.leader_comm,
            self.node_trainer_comm,
            self.replica_comm,
            self.memory_comm,
            self.epoch_comm,
            self.minibatch_comm,
            self.trainer_comm,
            self.node_comm,
        ]
        free(comms, self.timeout_s, _WHAT)


Nodes = tuple[tuple[int, ...], ...]
"""World ranks of each node."""


def nodes_of(world: Communicator, timeout_s: float) -> Nodes:
    """Ranks of ``world`` by node, ascending. Collective. Raises DeadlineError."""
    node_comm = node_comm_of(world, timeout_s)
    homes = allgather(world, bcast(node_comm, world.rank, timeout_s, _WHAT), timeout_s, _WHAT)
    free([node_comm], timeout_s, _WHAT)
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
    raise GridError(_no_such_ranks([len(node) for node in nodes], shape))


def _no_such_ranks(ranks: Sequence[int], shape: GridShape) -> str:
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
