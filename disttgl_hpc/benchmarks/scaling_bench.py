"""How training scales: the same steps on several grids in turns, and the time and traffic of each rank.

The measured code is :class:`~.trainer.Trainer` and the memory daemon as in training, without evaluation and files.
All grids run in one job, each on some of its ranks, while the other ranks sleep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from disttgl_hpc.benchmarks.measuring import Counters, Measure, figures, medians
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.stream import EventStream, check_training
from disttgl_hpc.grid.collectives import wait_request
from disttgl_hpc.grid.process_grid import Grid, Nodes, check_slices, choose_ranks, nodes_of
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.memory.client import MemoryClient, open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.node_memory import Beginning, MemoryRun, MemoryService
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.planning.machine import own_cores, processor, versions
from disttgl_hpc.planning.run_plan import RunPlan, batching_of
from disttgl_hpc.training.trainer import Trainer, compile_once

log = get_logger(__name__)

_LONGEST_SLEEP_S = 0.1  # of ranks that a grid does not need; polling more often would take its cores


@dataclass(frozen=True, kw_only=True)
class ScalingPlan:
    """Grids to compare; the first is the reference of the others.

    first_steps: where in the stream runs begin, each with an empty node memory. steps: measured from each of them,
    after ``warmup`` others. rounds: runs of each grid; a round runs every grid once, so that a drifting machine
    disturbs all of them alike.
    """

    grids: tuple[GridShape, ...]
    steps: int = 200
    warmup: int = 20
    rounds: int = 3
    first_steps: tuple[int, ...] = (0,)


def measure_scaling(
    stream: EventStream, config: TrainConfig, plan: ScalingPlan, world: Any
) -> dict[str, Any] | None:
    """Train by ``plan`` on the ranks of ``world``, an MPI communicator (collective).

    Returns plan, machine, settings and figures of each grid (see :func:`figures`) on rank 0, None on the others.
    Grid, epochs and evaluation of ``config`` have no effect. Raises ConfigError without training events, and
    GridError, before training, for a grid that does not fit the ranks or has more slices than training events.
    """
    check_training(stream)
    prepare_process(config.threads)
    nodes = nodes_of(world)
    parties = [choose_ranks(nodes, shape) for shape in plan.grids]
    for shape in plan.grids:
        check_slices(shape, stream.split.train_end)
    cores = world.allgather(own_cores())
    runs = _Turns(stream, config, plan, world).take(parties)
    if world.rank:
        return None
    machine = {
        "processor": processor(),
        "nodes": len(nodes),
        "ranks": world.size,
        "cores": _count_cores(nodes, cores),
        "versions": versions(),
    }
    grids = [
        {
            "grid": shape.option,
            "trainers": shape.num_trainers,
            "daemons": sum(len(node) > 1 for node in party),
            "nodes": len(party),
            "cores": _count_cores(party, cores),
            "oversubscribed": shape.num_trainers * config.threads > _count_cores(party, cores),
            "batches_per_sweep": batching_of(stream, config, shape).num_batches,
            "speed_up": median(
                own["events_per_s"] / first["events_per_s"]
                for own, first in zip(results, runs[0], strict=True)
            ),
            **medians(results),
            "rounds": results,
        }
        for shape, party, results in zip(plan.grids, parties, runs, strict=True)
    ]
    plan_facts = {
        "steps": plan.steps * len(plan.first_steps),
        "warmup": plan.warmup,
        "first_steps": list(plan.first_steps),
    }
    return {
        "stream": stream.name,
        **stream_facts(stream),
        **plan_facts,
        "machine": machine,
        "settings": config.as_dict(),
        "grids": grids,
    }


def stream_facts(stream: EventStream) -> dict[str, int]:
    """Sizes of a stream on which the time of a step depends: events, bytes of their features, widths of nodes."""
    row = None if stream.edge_features is None else stream.edge_features[:1]
    return {
        "train_events": stream.split.train_end,
        "edge_bytes": 0 if row is None else row.nbytes,
        "dim_node": stream.dim_node,
        "dim_static": stream.dim_static,
    }


@dataclass(frozen=True)
class _Turns:
    """Runs of all grids in turns, round by round."""

    stream: EventStream
    config: TrainConfig
    plan: ScalingPlan
    world: Any

    def take(self, parties: Sequence[Nodes]) -> list[list[dict[str, Any]]]:
        """Figures of every run by grid and round, on rank 0 only; each grid has its party of ranks. Collective."""
        plan, is_root = self.plan, self.world.rank == 0
        runs: list[list[dict[str, Any]]] = [[] for _ in plan.grids]
        with progress(plan.rounds * len(runs), "measuring", unit="runs", shown=is_root) as bar:
            for number in range(plan.rounds):
                for shape, party, results in zip(plan.grids, parties, runs, strict=True):
                    measures = self._run(shape, party)
                    if not is_root:
                        continue
                    results.append(figures(measures, num_nodes=len(party)))
                    speed = results[-1]["events_per_s"]
                    log.info("round %d of %d: %s, %.0f events/s", number + 1, plan.rounds, shape, speed)
                    bar.advance(1)
        return runs

    def _run(self, shape: GridShape, party: Nodes) -> list[Measure]:
        """Train the plan's steps once on the ranks of ``party``; rank 0 returns their measures. Collective."""
        takes_part = any(self.world.rank in node for node in party)
        part = self.world.Split(0 if takes_part else 1, self.world.rank)
        measure = self._train(shape, part) if takes_part else None
        what = f"the ranks that run {shape}"
        wait_request(self.world.Ibarrier(), self.config.timeout_s, what, longest_s=_LONGEST_SLEEP_S)
        part.Free()
        return [measure for measure in self.world.gather(measure) or () if measure is not None]

    def _train(self, shape: GridShape, part: Any) -> Measure:
        """Measure of this rank in a run on ``part``, the ranks of ``shape``. Collective over ``part``."""
        grid = Grid.create(part, shape)
        first, *others = [self._stretch(grid, first_step) for first_step in self.plan.first_steps]
        grid.free()
        return sum(others, first)

    def _stretch(self, grid: Grid, first_step: int) -> Measure:
        """Measure of this rank from one place of the stream. Collective over the grid."""
        stream, config, plan = self.stream, self.config, self.plan
        steps = plan.warmup + plan.steps
        run = RunPlan.of(stream, config, grid.shape, first_step + steps)
        memory_run = MemoryRun(
            sizes=run.sizes,
            num_batches=run.num_batches,
            num_steps=run.num_steps,
            beginning=Beginning(first_step),
            timeout_s=config.timeout_s,
        )
        if grid.is_daemon:
            # A daemon does not know where the measured steps begin, so its whole service counts.
            before = Counters.now()
            serve_memory(grid, memory_run)
            return Measure(True, steps, 0, Counters.now().since(before))
        memory = open_memory(grid, memory_run)
        trainer = Trainer(stream, config, run, grid, memory)
        trainer.go_on(first_step, None)
        compile_once(trainer, grid.node_trainer_comm, config.timeout_s)
        measured = range(first_step + plan.warmup, first_step + steps)
        for step in range(first_step, measured.start):
            trainer.step(step)
        trainer.clock.take()
        before = Counters.now(trainer, memory)
        events, step_s = _walk(trainer, memory, measured)
        spent = Counters.now(trainer, memory).since(before)
        size = sum(parameter.nbytes for parameter in trainer.model.parameters())
        measure = Measure(False, plan.steps, events, spent, step_s, trainer.clock.take(), size)
        trainer.close()
        memory.close()
        return measure


def _walk(trainer: Trainer, memory: MemoryService, steps: range) -> tuple[int, tuple[float, ...]]:
    """Train ``steps``; their events, and seconds of each without waits for other ranks."""

    def own_s() -> float:
        waited_s = memory.waited_s if isinstance(memory, MemoryClient) else 0.0
        return time.perf_counter() - waited_s - trainer.gradients.waited_s

    events, moments = 0, [own_s()]
    for step in steps:
        events += trainer.step(step)[1]
        moments.append(own_s())
    return events, tuple(after - before for before, after in pairwise(moments))


def _count_cores(nodes: Nodes, cores: Sequence[frozenset[int]]) -> int:
    """Number of cores on which the ranks of ``nodes`` may run. cores: of every rank, numbered by node."""
    return sum(len(frozenset().union(*(cores[rank] for rank in node))) for node in nodes)
