"""Choosing a grid for a stream: captured events, sizes of node memory, and what a calibration has measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.process_grid import nodes_of
from disttgl_hpc.grid.schedule import ALONE, GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.co_trained import static_shapes
from disttgl_hpc.memory.shared_tables import num_bytes, table_shapes
from disttgl_hpc.planning.captured import captured_share
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.machine import DAEMON_MIB, TRAINER_MIB, room_for_node_memory
from disttgl_hpc.planning.planner import (
    Candidate,
    Cluster,
    Losses,
    cautions,
    choose_grid,
    choose_local_batch,
    divisors,
    predicted_speed,
)
from disttgl_hpc.planning.run_plan import RunPlan

log = get_logger(__name__)


def plan_grid(
    stream: EventStream,
    config: TrainConfig,
    cluster: Cluster,
    machine: Machine,
    calibrations: Sequence[dict[str, Any]],
    *,
    base: int,
    max_loss: float,
) -> dict[str, Any]:
    """A local batch and a grid for ``cluster``, as plain values with all that was looked at.

    calibrations: records of one trainer, one for each local batch to choose from; without any it is that of
    ``config``, and no speed is predicted. Raises GridError if no replica fits a node.
    """
    measured = [(Costs.of(record), record["settings"]["local_batch"]) for record in calibrations]
    costs = {local_batch: cost for cost, local_batch in measured}
    sizes = sorted(costs) or [config.local_batch]
    losses = _losses(
        stream, {base, *(i * size for size in sizes for i in divisors(cluster.trainers_per_node))}, base
    )
    speeds = {size: costs[size].events_per_s for size in costs}
    local_batch, reasons = (
        choose_local_batch(speeds, losses, max_loss=max_loss) if speeds else (config.local_batch, {})
    )
    config = replace(config, local_batch=local_batch)
    candidates = _choose(
        stream,
        config,
        cluster,
        losses,
        max_loss=max_loss,
        speed_of=predicted_speed(costs[local_batch], machine, cluster.nodes) if costs else lambda _: None,
    )
    chosen = _chosen(candidates)
    return {
        "stream": stream.name,
        "events": stream.split.train_end,
        "nodes": cluster.nodes,
        "trainers_per_node": cluster.trainers_per_node,
        "memory_per_node": cluster.memory_per_node,
        "base_batch": base,
        "max_loss": max_loss,
        "local_batch": local_batch,
        "local_batches": [
            {
                "local_batch": size,
                "events_per_s": speeds[size],
                "share": losses.shares[size],
                "loss": losses.of(size),
                "is_chosen": size == local_batch,
                "reason": reasons[size],
            }
            for size in speeds
        ],
        "epochs": config.epochs,
        "candidates": [candidate.as_dict() for candidate in candidates],
        "grid": chosen.shape.option,
        "cautions": cautions(chosen, config.epochs),
        "calibration": list(calibrations),
    }


def grid_shape(stream: EventStream, config: TrainConfig, world: Any) -> GridShape | None:
    """The grid that a run's settings ask for; None for a replica a trainer. Collective, see :func:`auto_grid`."""
    if config.grid == "auto":
        return auto_grid(stream, config, world)
    return GridShape.parse(config.grid) if config.grid else None


def auto_grid(stream: EventStream, config: TrainConfig, world: Any) -> GridShape:
    """Grid for the ranks that were started, without a calibration: the paper's rules at the given local batch.

    Node memory gets what trainers and daemons leave of the memory, see :func:`~.machine.room_for_node_memory`.
    Collective over ``world``; the same on all ranks. Unequal nodes get what the smallest could take, which laying
    the grid then refuses. Raises GridError if no replica fits the free shared memory of each node.
    """
    nodes = nodes_of(world)
    per_node = min(map(len, nodes)) - 1
    if world.size == 1 or per_node < 1:
        return ALONE
    room = min(world.allgather(room_for_node_memory(per_node)))
    cluster = Cluster(nodes=len(nodes), trainers_per_node=per_node, memory_per_node=room)
    base = config.local_batch
    losses = _losses(stream, {i * base for i in divisors(per_node)}, base)
    remedy = (
        f"what is free, in /dev/shm and beside {TRAINER_MIB} MiB for each trainer and {DAEMON_MIB} for the daemon; "
        "free some, start fewer ranks a node, or take a smaller --dim-memory"
    )
    candidates = _choose(stream, config, cluster, losses, remedy=remedy)
    chosen = _chosen(candidates)
    shape = chosen.shape
    log.info("grid %s, of %d that these ranks could lay; disttgl plan says why", shape, len(candidates))
    for caution in cautions(chosen, config.epochs):
        log.warning("%s", caution)
    return shape


def _losses(stream: EventStream, batches: set[int], base: int) -> Losses:
    """Captured shares of batches of these sizes."""
    sizes = sorted(batches)
    shares = captured_share(stream.tcsr, stream.split.train_end, sizes)
    return Losses(dict(zip(sizes, shares, strict=True)), base)


def _choose(
    stream: EventStream,
    config: TrainConfig,
    cluster: Cluster,
    losses: Losses,
    **rules: Any,
) -> tuple[Candidate, ...]:
    """Candidates for a stream under the settings of a run."""

    def memory_of(shape: GridShape) -> int:
        sizes = RunPlan.of(stream, config, shape).sizes
        memory = num_bytes(table_shapes(sizes, shape, shape.memory // cluster.nodes))
        if config.static == CO_TRAINED:
            trainers = cluster.trainers_per_node
            memory += num_bytes(static_shapes(stream.num_nodes, config.dim_memory, sizes.read_rows, trainers))
        return memory

    num_events = stream.split.train_end
    return choose_grid(
        cluster, config.local_batch, losses, memory_of, num_events=num_events, epochs=config.epochs, **rules
    )


def _chosen(candidates: Sequence[Candidate]) -> Candidate:
    return next(candidate for candidate in candidates if candidate.is_chosen)
