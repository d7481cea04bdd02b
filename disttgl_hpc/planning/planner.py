"""The rules that choose a grid, with a reason for every grid that fills the cluster.

First the largest global batch whose information loss is acceptable (mini-batch parallelism i), then as many
replicas as the node memory allows, at least one a node (memory parallelism k); epoch parallelism j takes the
remaining trainers (DistTGL, §3.3). All nodes have equally many trainers, and the trainers of a replica share a
node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from disttgl_hpc.errors import GridError
from disttgl_hpc.grid.schedule import GridShape, num_steps

MAX_LOSS = 0.1
"""Acceptable information loss; doubling a batch of 600 loses 8 to 28 % on the measured streams, and accuracy."""
NEARLY_BEST = 0.95
"""A local batch of at least this share of the best speed is as good as the best."""
FEW_STEPS = 200
"""Gradient steps below which a plan warns: a step of Adam is as large as the learning rate, whatever the batch."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Nodes to plan for. memory_per_node: bytes for shared memory on each."""

    nodes: int
    trainers_per_node: int
    memory_per_node: int


@dataclass(frozen=True)
class Losses:
    """Captured shares by batch size, and the information loss of batches larger than ``base``.

    The loss of a batch is 1 − captured(batch) / captured(base): the share of the mails that reach the memory in
    batches of the base size, whose accuracy is known, and no longer reach it in this one. It is 0 up to that size.
    """

    shares: Mapping[int, float]
    base: int

    def of(self, batch: int) -> float:
        """Information loss of batches of this size, which is in ``shares``."""
        return max(0.0, 1 - self.shares[batch] / self.shares[self.base])


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A grid that fills the cluster.

    share, loss: captured share and information loss of its global batch. memory: bytes on each node. events_per_s:
    predicted; None without a calibration. passes, steps: over each event, and gradient steps, of the whole run.
    reason: why it was chosen or not.
    """

    shape: GridShape
    global_batch: int
    share: float
    loss: float
    memory: int
    events_per_s: float | None
    passes: int
    steps: int
    is_chosen: bool = False
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"grid": self.shape.option} | {
            name: value for name, value in vars(self).items() if name != "shape"
        }


@dataclass(frozen=True, kw_only=True)
class GridRules:
    """What the choice of a grid depends on.

    losses: of i·local_batch for all i that divide the trainers of a node. memory_of: bytes of a grid on each node.
    num_events: of a sweep. epochs: of the run, which trains whole sweeps. speed_of: predicted events/s of a grid;
    None without a calibration. remedy: for the error if not even one replica fits a node.
    """

    cluster: Cluster
    local_batch: int
    losses: Losses
    memory_of: Callable[[GridShape], int]
    num_events: int
    epochs: int
    speed_of: Callable[[GridShape], float] | None = None
    max_loss: float = MAX_LOSS
    remedy: str = "a larger --memory-per-node, or a smaller --dim-memory"

    def num_batches(self, shape: GridShape) -> int:
        """Global batches of a sweep."""
        return -(-self.num_events // (shape.minibatch * self.local_batch))

    def candidate(self, shape: GridShape) -> Candidate:
        """A grid before the choice."""
        global_batch = shape.minibatch * self.local_batch
        return Candidate(
            shape=shape,
            global_batch=global_batch,
            share=self.losses.shares[global_batch],
            loss=self.losses.of(global_batch),
            memory=self.memory_of(shape),
            events_per_s=self.speed_of(shape) if self.speed_of else None,
            passes=num_steps(self.epochs, shape, 1) * shape.epoch * shape.memory,
            steps=num_steps(self.epochs, shape, self.num_batches(shape)),
        )

    def objection(self, candidate: Candidate) -> str:
        """Why a grid is not allowed; "" if it is. A trainer's own batch is never too large."""
        if candidate.memory > self.cluster.memory_per_node:
            return f"does not fit: a node has {self.cluster.memory_per_node / 2**20:,.0f} MiB"
        has_slices = candidate.shape.minibatch > 1
        if has_slices and candidate.global_batch > self.num_events:
            return f"a sweep has {self.num_events:,} events"
        if has_slices and candidate.loss > self.max_loss:
            return f"loses {candidate.loss:.1%}, more than {self.max_loss:.1%}"
        return ""

    def preference(self, candidate: Candidate) -> tuple[int, int]:
        """Sort key of the allowed grids, best last: the largest batch, then the most replicas.

        Replicas beyond the number of batches start at the same batches as others, and are no gain.
        """
        shape = candidate.shape
        has_batch_for_each = shape.memory <= self.num_batches(shape)
        return shape.minibatch, shape.memory if has_batch_for_each else -shape.memory

    def comparison(self, shape: GridShape, chosen: GridShape) -> str:
        """Why an allowed grid was chosen or not."""
        if shape == chosen:
            return "the largest batch that loses no more than allowed, then the most replicas that fit"
        if shape.minibatch < chosen.minibatch:
            return f"a larger batch is acceptable: i = {chosen.minibatch}"
        if shape.memory < chosen.memory:
            return f"more replicas fit: k = {chosen.memory}"
        return f"more replicas than the {self.num_batches(shape)} batches of a sweep"


def choose_grid(rules: GridRules) -> tuple[Candidate, ...]:
    """Every grid that fills the cluster, one of them chosen. Raises GridError if no replica fits a node."""
    candidates = [rules.candidate(shape) for shape in _shapes(rules.cluster)]
    objections = [rules.objection(candidate) for candidate in candidates]
    allowed = [one for one, objection in zip(candidates, objections, strict=True) if not objection]
    if not allowed:
        raise GridError(
            f"a node holds at least one replica of the node memory with its slots, "
            f"{min(one.memory for one in candidates):,} bytes, and has {rules.cluster.memory_per_node:,}: "
            f"{rules.remedy}"
        )
    chosen = max(allowed, key=rules.preference).shape
    return tuple(
        replace(
            one,
            is_chosen=one.shape == chosen,
            reason=objection or rules.comparison(one.shape, chosen),
        )
        for one, objection in zip(candidates, objections, strict=True)
    )


def choose_local_batch(
    speeds: Mapping[int, float], losses: Losses, *, max_loss: float = MAX_LOSS
) -> tuple[int, dict[int, str]]:
    """The smallest local batch that is nearly as fast as the fastest, and a reason for each size.

    speeds: events/s of one trainer by local batch. Sizes that lose too much are not allowed, unless all do.
    """
    allowed = [batch for batch in sorted(speeds) if losses.of(batch) <= max_loss] or [min(speeds)]
    best = max(speeds[batch] for batch in allowed)
    chosen = next(batch for batch in allowed if speeds[batch] >= NEARLY_BEST * best)
    reasons = {}
    for batch in sorted(speeds):
        if batch not in allowed:
            reasons[batch] = f"loses {losses.of(batch):.1%}, more than {max_loss:.1%}"
        elif batch < chosen:
            reasons[batch] = "larger ones are faster"
        elif batch > chosen:
            reasons[batch] = f"gains less than {1 / NEARLY_BEST - 1:.0%}"
        else:
            reasons[batch] = "the smallest that is nearly as fast as the fastest"
    return chosen, reasons


def cautions(chosen: Candidate, epochs: int) -> list[str]:
    """Problems of a chosen grid that the rules do not consider, with remedies."""
    is_alone = chosen.shape.num_trainers == 1
    others = "a smaller --local-batch" if is_alone else "--scale-lr sqrt, fewer trainers"
    remedy = f"{others}, or more --epochs"
    passes_a_sweep = chosen.shape.epoch * chosen.shape.memory
    found = []
    if passes_a_sweep > epochs:
        found.append(
            f"{chosen.shape} trains whole sweeps of {passes_a_sweep:,} passes, more than the {epochs:,} epochs "
            f"requested: trainers beyond j·k = {epochs:,} save no time; use {remedy}"
        )
    if chosen.steps < FEW_STEPS:
        found.append(
            f"{chosen.shape} takes {chosen.steps:,} gradient steps in all, fewer than {FEW_STEPS}: too few for a "
            f"model to learn much; use {remedy}"
        )
    return found


def _shapes(cluster: Cluster) -> list[GridShape]:
    """Grids that fill the nodes evenly, by ascending batch, then descending replicas."""
    per_node = cluster.trainers_per_node
    return [
        GridShape(i, per_node // (i * replicas), replicas * cluster.nodes)
        for i in divisors(per_node)
        for replicas in reversed(divisors(per_node // i))
    ]


def divisors(number: int) -> list[int]:
    """Divisors of ``number``, ascending."""
    return [part for part in range(1, number + 1) if number % part == 0]
