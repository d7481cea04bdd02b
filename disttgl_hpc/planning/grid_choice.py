"""Chooses the grid for a stream, from captured events, sizes of the node memory and a calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import Communicator, allgather
from disttgl_hpc.grid.process_grid import nodes_of
from disttgl_hpc.grid.schedule import ALONE, GridShape
from disttgl_hpc.grid.shared_memory import gradient_bytes
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.co_trained import static_shapes
from disttgl_hpc.memory.shared_tables import num_bytes, table_shapes
from disttgl_hpc.planning.captured import captured_share
from disttgl_hpc.planning.costs import Costs, Machine
from disttgl_hpc.planning.machine import DAEMON_MIB, TRAINER_MIB, room_for_node_memory
from disttgl_hpc.planning.planner import (
    Candidate,
    Cluster,
    GridRules,
    Losses,
    cautions,
    choose_grid,
    choose_local_batch,
    divisors,
)
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.planning.scaling import predict

log = get_logger(__name__)


def plan_grid(
    stream: EventStream,
    config: TrainConfig,
    cluster: Cluster,
    machine: Machine,
    calibrations: Sequence[dict[str, Any]],
    *,
    num_parameters: int,
    base: int,
    max_loss: float,
) -> dict[str, Any]:
    """A local batch and a grid for ``cluster``, with all candidates, as plain values.

    calibrations: records of one trainer, one for each local batch to choose from. Without any, the local batch is
    that of ``config``, and no speed is predicted. num_parameters: of the model. base: batch without information
    loss. Raises GridError if no replica fits a node.
    """
    costs = {record["settings"]["local_batch"]: Costs.of(record) for record in calibrations}
    sizes = sorted(costs) or [config.local_batch]
    slices = divisors(cluster.trainers_per_node)
    losses = _losses(stream, (i * size for size in sizes for i in slices), base)
    speeds = {size: cost.events_per_s for size, cost in costs.items()}
    local_batch, reasons = config.local_batch, dict[int, str]()
    if speeds:
        local_batch, reasons = choose_local_batch(speeds, losses, max_loss=max_loss)
    config = replace(config, local_batch=local_batch)
    rules = replace(_rules(stream, config, cluster, losses, num_parameters), max_loss=max_loss)
    if speeds:
        cost = costs[local_batch]
        rules = replace(
            rules, speed_of=lambda shape: predict(cost, machine, shape, cluster.nodes).events_per_s
        )
    candidates = choose_grid(rules)
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


def grid_shape(
    stream: EventStream, config: TrainConfig, world: Communicator, num_parameters: int
) -> GridShape | None:
    """The grid of a run's settings; None for one replica a trainer. Collective, see :func:`auto_grid`."""
    if config.grid == "auto":
        return auto_grid(stream, config, world, num_parameters)
    return GridShape.parse(config.grid) if config.grid else None


def auto_grid(
    stream: EventStream, config: TrainConfig, world: Communicator, num_parameters: int
) -> GridShape:
    """The grid for the ranks of ``world``, by the rules of the planner at the local batch of ``config``.

    num_parameters: of the model. Windows may take the memory that trainers and daemons leave free (see
    :func:`~.machine.room_for_node_memory`). Collective over ``world``, with the same result on all ranks. Nodes
    of different sizes get a grid for the smallest, which :func:`~.process_grid.place` then refuses. Raises
    GridError if no replica fits the free shared memory of each node.
    """
    nodes = nodes_of(world, config.timeout_s)
    trainers_per_node = min(map(len, nodes)) - 1
    if world.size == 1 or trainers_per_node < 1:
        return ALONE
    own_room = room_for_node_memory(trainers_per_node)
    room = min(allgather(world, own_room, config.timeout_s, "the nodes' free memory"))
    cluster = Cluster(nodes=len(nodes), trainers_per_node=trainers_per_node, memory_per_node=room)
    base = config.local_batch
    losses = _losses(stream, (i * base for i in divisors(trainers_per_node)), base)
    remedy = (
        f"that much is free in /dev/shm and beside {TRAINER_MIB} MiB for each trainer and {DAEMON_MIB} for the "
        "daemon; free some, start fewer ranks a node, or use a smaller --dim-memory"
    )
    candidates = choose_grid(replace(_rules(stream, config, cluster, losses, num_parameters), remedy=remedy))
    chosen = _chosen(candidates)
    log.info("grid %s, of %d possible on these ranks; disttgl plan says why", chosen.shape, len(candidates))
    for caution in cautions(chosen, config.epochs):
        log.warning("%s", caution)
    return chosen.shape


def _losses(stream: EventStream, batches: Iterable[int], base: int) -> Losses:
    """Captured shares of batches of these sizes and of ``base``."""
    sizes = sorted({base, *batches})
    shares = captured_share(stream.tcsr, stream.split.train_end, sizes)
    return Losses(dict(zip(sizes, shares, strict=True)), base)


def shared_bytes(
    stream: EventStream, config: TrainConfig, shape: GridShape, nodes: int, num_parameters: int
) -> int:
    """Shared memory that a run takes on each of ``nodes`` nodes: node memory, gradients, static node memory.

    num_parameters: of the model.
    """
    sizes, trainers = RunPlan.of(stream, config, shape).sizes, shape.num_trainers // nodes
    needed = num_bytes(table_shapes(sizes, shape, shape.memory // nodes))
    if shape.num_trainers > 1:
        needed += gradient_bytes(num_parameters, trainers)
    if config.static == CO_TRAINED:
        needed += num_bytes(static_shapes(stream.num_nodes, config.dim_memory, sizes.read_rows, trainers))
    return needed


def _rules(
    stream: EventStream, config: TrainConfig, cluster: Cluster, losses: Losses, num_parameters: int
) -> GridRules:
    """Rules for a stream under the settings of a run."""

    def memory_of(shape: GridShape) -> int:
        return shared_bytes(stream, config, shape, cluster.nodes, num_parameters)

    return GridRules(
        cluster=cluster,
        local_batch=config.local_batch,
        losses=losses,
        memory_of=memory_of,
        num_events=stream.split.train_end,
        epochs=config.epochs,
    )


def _chosen(candidates: Sequence[Candidate]) -> Candidate:
    return next(candidate for candidate in candidates if candidate.is_chosen)
