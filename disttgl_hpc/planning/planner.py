"""Which grid to take: the paper's rules, with every grid that was looked at and why it was not taken.

First the largest batch whose information loss is acceptable (mini-batch parallelism i), then as many replicas as
node memory allows, at least one a node (memory parallelism k); epoch parallelism j takes what is left (DistTGL,
§3.3). All nodes have as many trainers, and a replica's trainers share a node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import GridShape, num_steps
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.scaling import predict

MAX_LOSS = 0.1
"""Doubling a batch of 600 costs 8 to 28 % of what it captures on the streams looked at, and accuracy with it."""
NEARLY_BEST = 0.95
"""Share of the best speed from which on a larger local batch no longer counts as a gain."""

FEW_STEPS = 200
"""Gradient steps below which a plan warns: Adam's are of the learning rate's size, however large the batch."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes to plan for: how many, trainers on each, and bytes for node memory and its slots on each."""

    nodes: int
    trainers_per_node: int
    memory_per_node: int


@dataclass(frozen=True)
class Losses:
    """Captured shares by batch size, and the information that a larger batch than ``base`` loses.

    The loss of a batch is 1 − captured(batch) / captured(base): of the mails that the memory learns of in batches
    of the base size, whose accuracy is known, the share that it no longer learns of. It is 0 up to that size.
    """

    shares: Mapping[int, float]
    base: int

    def of(self, batch: int) -> float:
        """Information loss of batches of this size, one of those in ``shares``."""
        return max(0.0, 1 - self.shares[batch] / self.shares[self.base])


@dataclass(frozen=True)
class Candidate:
    """A grid and what speaks for or against it.

    share, loss: captured share and information loss of its global batch. memory: bytes on each node. events_per_s:
    predicted, None without a calibration. passes, steps: over each event, and gradient steps, of the whole run.
    reason: why it was taken or not.
    """

    shape: GridShape
    global_batch: int
    share: float
    loss: float
    memory: int
    events_per_s: float | None
    passes: int
    steps: int
    is_chosen: bool
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"grid": self.shape.option} | {
            name: vars(self)[name] for name in vars(self) if name != "shape"
        }


def choose_local_batch(
    speeds: Mapping[int, float], losses: Losses, *, max_loss: float = MAX_LOSS
) -> tuple[int, dict[int, str]]:
    """The smallest local batch that the device is (nearly) at its best with, and why, size by size.

    speeds: events/s of one trainer by local batch. Sizes that lose too much are not looked at, unless all do.
    """
    allowed = [batch for batch in sorted(speeds) if losses.of(batch) <= max_loss] or [min(speeds)]
    best = max(speeds[batch] for batch in allowed)
    chosen = next(batch for batch in allowed if speeds[batch] >= NEARLY_BEST * best)
    reasons = {}
    for batch in sorted(speeds):
        if batch not in allowed:
            reasons[batch] = f"loses {losses.of(batch):.1%}, more than {max_loss:.1%}"
        elif batch < chosen:
            reasons[batch] = "the device is faster with larger ones"
        elif batch > chosen:
            reasons[batch] = f"gains less than {1 / NEARLY_BEST - 1:.0%}"
        else:
            reasons[batch] = "the smallest that the device is nearly at its best with"
    return chosen, reasons


def choose_grid(
    cluster: Cluster,
    local_batch: int,
    losses: Losses,
    memory_of: Callable[[GridShape], int],
    *,
    num_events: int,
    epochs: int,
    speed_of: Callable[[GridShape], float | None] = lambda _: None,
    max_loss: float = MAX_LOSS,
    remedy: str = "a larger --memory-per-node, or a smaller --dim-memory",
) -> tuple[Candidate, ...]:
    """Every grid that fills ``cluster``, one of them chosen.

    ``losses`` knows the sizes i·local_batch for all i that divide a node's trainers. memory_of: bytes of a grid on
    each node. num_events: of a sweep. epochs: asked for; a run trains whole sweeps. Raises GridError if
    not even one replica fits a node.
    """

    def num_batches(shape: GridShape) -> int:
        return -(-num_events // (shape.minibatch * local_batch))

    def objection(shape: GridShape) -> str:
        """Why a grid is out of the question; empty if it is not. A trainer's own batch is never too large."""
        global_batch, memory = shape.minibatch * local_batch, memory_of(shape)
        if memory > cluster.memory_per_node:
            return f"does not fit: a node has {cluster.memory_per_node / 2**20:,.0f} MiB"
        if shape.minibatch > 1 and global_batch > num_events:
            return f"a sweep has {num_events:,} events"
        if shape.minibatch > 1 and losses.of(global_batch) > max_loss:
            return f"loses {losses.of(global_batch):.1%}, more than {max_loss:.1%}"
        return ""

    def passes(shape: GridShape) -> int:
        return num_steps(epochs, shape, 1) * shape.epoch * shape.memory

    def rank(shape: GridShape) -> tuple[int, int]:
        """Order of preference; replicas beyond the number of batches begin at the same ones, and are no gain."""
        return shape.minibatch, shape.memory if shape.memory <= num_batches(shape) else -shape.memory

    def preference(shape: GridShape) -> str:
        """Why a possible grid was taken or not."""
        if shape == chosen:
            return "the largest batch that loses no more than allowed, then the most replicas that fit"
        if shape.minibatch < chosen.minibatch:
            return f"a larger batch is acceptable: i = {chosen.minibatch}"
        if shape.memory < chosen.memory:
            return f"more replicas fit: k = {chosen.memory}"
        return f"more replicas than the {num_batches(shape)} batches of a sweep"

    shapes = _shapes(cluster)
    possible = [shape for shape in shapes if not objection(shape)]
    if not possible:
        raise GridError(
            f"a node holds at least one replica of the node memory with its slots, {min(map(memory_of, shapes)):,} "
            f"bytes, and has {cluster.memory_per_node:,}: {remedy}"
        )
    chosen = max(possible, key=rank)
    return tuple(
        Candidate(
            shape,
            shape.minibatch * local_batch,
            losses.shares[shape.minibatch * local_batch],
            losses.of(shape.minibatch * local_batch),
            memory_of(shape),
            speed_of(shape),
            passes(shape),
            num_steps(epochs, shape, num_batches(shape)),
            shape == chosen,
            objection(shape) or preference(shape),
        )
        for shape in shapes
    )


def cautions(chosen: Candidate, epochs: int) -> list[str]:
    """What may go wrong with a chosen grid that the rules do not look at, with remedies."""
    is_alone = chosen.shape.num_trainers == 1
    others = "a smaller --local-batch" if is_alone else "--scale-lr sqrt, fewer trainers"
    remedy = f"{others}, or more --epochs"
    passes_a_sweep = chosen.shape.epoch * chosen.shape.memory
    found = []
    if passes_a_sweep > epochs:
        found.append(
            f"{chosen.shape} trains whole sweeps of {passes_a_sweep:,} passes, more than the {epochs:,} epochs "
            f"asked for: trainers beyond j·k = {epochs:,} save no time; take {remedy}"
        )
    if chosen.steps < FEW_STEPS:
        found.append(
            f"{chosen.shape} takes {chosen.steps:,} gradient steps in all, fewer than {FEW_STEPS}: a model hardly "
            f"learns in so few; take {remedy}"
        )
    return found


def _shapes(cluster: Cluster) -> list[GridShape]:
    """Grids that fill the nodes evenly, those of small batches and many replicas first."""
    per_node = cluster.trainers_per_node
    return [
        GridShape(i, per_node // (i * replicas), replicas * cluster.nodes)
        for i in divisors(per_node)
        for replicas in reversed(divisors(per_node // i))
    ]


def predicted_speed(costs: Costs, machine: Machine, nodes: int) -> Callable[[GridShape], float]:
    """Events/s of grids on so many nodes, as the scaling model predicts them."""
    return lambda shape: predict(costs, machine, shape, nodes).events_per_s


def divisors(number: int) -> list[int]:
    """Numbers that divide ``number``, ascending."""
    return [part for part in range(1, number + 1) if number % part == 0]
