"""How training scales: the same steps on several grids, taken in turns, and what each rank spent on them.

What is measured is :class:`~.trainer.Trainer` and the memory daemon as training runs them; there is neither
evaluation nor a file. All grids run in one job, each on a part of its ranks, and the other ranks sleep.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.memory import MemoryService
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.nn.processor import prepare_process
from disttgl_hpc.parallel.client import MemoryClient, open_memory
from disttgl_hpc.parallel.daemon import serve_memory
from disttgl_hpc.parallel.grid import Grid, check_slices
from disttgl_hpc.parallel.subset import Nodes, choose_ranks, nodes_of
from disttgl_hpc.parallel.waiting import wait_request
from disttgl_hpc.runs.machine import own_cores, processor, tcp_bytes_sent, versions
from disttgl_hpc.runs.plan import RunPlan, batching_of, check_training
from disttgl_hpc.runs.trainer import Trainer
from disttgl_hpc.runs.warmup import compile_once

log = get_logger(__name__)

_ONLY_IN_ROUNDS = ("step_s", "phases_s")
_LONGEST_SLEEP_S = 0.1  # of the ranks that a grid does not need: looking more often would take its cores


@dataclass(frozen=True, kw_only=True)
class ScalingPlan:
    """Grids to compare, the first being what the others are compared with.

    steps: measured in each run, after ``warmup`` others. rounds: runs of each grid; a round runs every grid
    once, so that a machine that drifts disturbs all of them alike.
    """

    grids: tuple[GridShape, ...]
    steps: int = 200
    warmup: int = 20
    rounds: int = 3


@dataclass(frozen=True)
class Counters:
    """What a rank has used up, since its start or, as a difference, over some steps.

    elapsed_s: wall clock. cpu_s: user and system time of all its threads. memory_wait_s, gradient_wait_s:
    within waits for the daemon's replies, and within sums of gradients. gradient_bytes: handed to
    sums between nodes.
    tcp_bytes: sent through TCP.
    """

    elapsed_s: float
    cpu_s: float
    memory_wait_s: float
    gradient_wait_s: float
    gradient_bytes: int
    tcp_bytes: int

    @classmethod
    def now(cls, trainer: Trainer | None = None, memory: MemoryService | None = None) -> Counters:
        """Counters of this rank, a trainer with its memory service or a daemon."""
        return cls(
            elapsed_s=time.perf_counter(),
            cpu_s=time.process_time(),
            memory_wait_s=memory.waited_s if isinstance(memory, MemoryClient) else 0.0,
            gradient_wait_s=trainer.gradients.waited_s if trainer else 0.0,
            gradient_bytes=trainer.gradients.sent_bytes if trainer else 0,
            tcp_bytes=tcp_bytes_sent(),
        )

    def since(self, earlier: Counters) -> Counters:
        """The difference between two moments."""
        return Counters(
            *(getattr(self, each.name) - getattr(earlier, each.name) for each in fields(Counters))
        )


@dataclass(frozen=True)
class Measure:
    """What one rank spent on ``steps`` steps and the events it trained in them; a daemon trains none.

    step_s: seconds of each of a trainer's steps without its waits for other ranks. phases_s: of all of them, by
    phase, waits included. model_bytes: size of its gradients.
    """

    is_daemon: bool
    steps: int
    events: int
    spent: Counters
    step_s: tuple[float, ...] = ()
    phases_s: dict[str, float] = field(default_factory=dict)
    model_bytes: int = 0


def measure_scaling(
    stream: EventStream, config: TrainConfig, plan: ScalingPlan, world: Any
) -> dict[str, Any] | None:
    """Train by ``plan`` on the ranks of ``world``, an MPI communicator (collective).

    Returns plan, machine and figures of each grid (see :func:`figures`) on rank 0, None on the others. Of config
    the grid, the epochs and evaluation do not matter. Raises ConfigError without training events, and GridError,
    before anything is trained, for a grid that the started ranks cannot hold or that cuts a batch into more slices
    than there are events.
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
    plan_facts = {"steps": plan.steps, "warmup": plan.warmup}
    return {"stream": stream.name, **stream_facts(stream), **plan_facts, "machine": machine, "grids": grids}


def stream_facts(stream: EventStream) -> dict[str, int]:
    """What of a stream a step's time depends on: training events, bytes of their features, widths of a node's."""
    row = None if stream.edge_features is None else stream.edge_features[:1]
    return {
        "train_events": stream.split.train_end,
        "edge_bytes": 0 if row is None else row.nbytes,
        "dim_node": stream.dim_node,
        "dim_static": stream.dim_static,
    }


@dataclass(frozen=True)
class _Turns:
    """Runs of all grids in turns, round by round. Every method is collective over ``world``."""

    stream: EventStream
    config: TrainConfig
    plan: ScalingPlan
    world: Any

    def take(self, parties: Sequence[Nodes]) -> list[list[dict[str, Any]]]:
        """Figures of every run by grid and round, each grid on the ranks of its party; only on rank 0."""
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
        """Train the plan's steps once on the ranks of ``party``; rank 0 gets what each of them measured."""
        takes_part = any(self.world.rank in node for node in party)
        part = self.world.Split(0 if takes_part else 1, self.world.rank)
        measure = self._train(shape, part) if takes_part else None
        what = f"the ranks that run {shape}"
        wait_request(self.world.Ibarrier(), self.config.timeout_s, what, longest_s=_LONGEST_SLEEP_S)
        part.Free()
        return [measure for measure in self.world.gather(measure) or () if measure is not None]

    def _train(self, shape: GridShape, part: Any) -> Measure:
        """Share of one rank in a run on ``part``, the ranks that ``shape`` needs; collective over it only."""
        stream, config, plan = self.stream, self.config, self.plan
        grid = Grid.create(part, shape)
        steps = plan.warmup + plan.steps
        run = RunPlan.of(stream, config, shape, steps)
        order = (run.sizes, run.num_batches, run.num_steps)
        if grid.is_daemon:
            # It knows no steps to measure between, so its whole service counts, with its beginning and end.
            before = Counters.now()
            serve_memory(grid, *order, timeout_s=config.timeout_s)
            measure = Measure(True, steps, 0, Counters.now().since(before))
        else:
            memory = open_memory(grid, *order, timeout_s=config.timeout_s)
            trainer = Trainer(stream, config, run, grid, memory)
            compile_once(trainer, grid.node_trainer_comm, config.timeout_s)
            for step in range(plan.warmup):
                trainer.step(step)
            trainer.clock.take()
            before = Counters.now(trainer, memory)
            events, step_s = _walk(trainer, memory, range(plan.warmup, steps))
            spent = Counters.now(trainer, memory).since(before)
            size = sum(parameter.nbytes for parameter in trainer.model.parameters())
            measure = Measure(False, plan.steps, events, spent, step_s, trainer.clock.take(), size)
            trainer.close()
            memory.close()
        grid.free()
        return measure


def _walk(trainer: Trainer, memory: MemoryService, steps: range) -> tuple[int, tuple[float, ...]]:
    """Train ``steps``; their events, and the seconds of each without its waits for other ranks."""

    def own_s() -> float:
        waited_s = memory.waited_s if isinstance(memory, MemoryClient) else 0.0
        return time.perf_counter() - waited_s - trainer.gradients.waited_s

    events, moments = 0, [own_s()]
    for step in steps:
        events += trainer.step(step)[1]
        moments.append(own_s())
    return events, tuple(after - before for before, after in pairwise(moments))


def _count_cores(nodes: Nodes, cores: Sequence[frozenset[int]]) -> int:
    """Cores on which the ranks of ``nodes`` may run; ``cores``: those of every rank, numbered by node."""
    return sum(len(frozenset().union(*(cores[rank] for rank in node))) for node in nodes)


def figures(measures: Sequence[Measure], *, num_nodes: int) -> dict[str, Any]:
    """Figures of one run from the measures of its ranks.

    events_per_s: events of all trainers per second of the slowest; an event counts each time it is trained.
    trainer_cpu_us, daemon_cpu_us: CPU-microseconds per event, of all trainers, of all daemons.
    daemon_share: CPU time of a daemon over that of a trainer, for the same steps. elapsed_s, and memory_wait_s
    and gradient_wait_s, one value a trainer: seconds of the measured steps. waiting_share: the part of the
    trainers' time that went to both waits. gradient_bytes, tcp_bytes: of all ranks in a step (see
    jobs/benchmarks/README.md for what they count). model_bytes: of one trainer's gradients. phases_s: seconds by
    phase, mean over trainers. step_s: of every trainer, seconds of each step without its waits for other ranks.
    """
    trainers = [measure for measure in measures if not measure.is_daemon]
    daemons = [measure for measure in measures if measure.is_daemon]
    steps, crosses = trainers[0].steps, num_nodes > 1
    events = sum(measure.events for measure in trainers)
    elapsed_s = max(measure.spent.elapsed_s for measure in trainers)
    trainer_cpu_s = sum(measure.spent.cpu_s for measure in trainers)
    daemon_cpu_s = sum(measure.spent.cpu_s * steps / measure.steps for measure in daemons)
    memory_wait_s = [measure.spent.memory_wait_s for measure in trainers]
    gradient_wait_s = [measure.spent.gradient_wait_s for measure in trainers]
    return {
        "events_per_s": events / elapsed_s,
        "trainer_cpu_us": 1e6 * trainer_cpu_s / events,
        "daemon_cpu_us": 1e6 * daemon_cpu_s / events,
        "daemon_share": daemon_cpu_s / max(1, len(daemons)) / (trainer_cpu_s / len(trainers)),
        "elapsed_s": elapsed_s,
        "memory_wait_s": memory_wait_s,
        "gradient_wait_s": gradient_wait_s,
        "waiting_share": (sum(memory_wait_s) + sum(gradient_wait_s)) / (elapsed_s * len(trainers)),
        "gradient_bytes": sum(measure.spent.gradient_bytes for measure in trainers) / steps * crosses,
        "tcp_bytes": sum(measure.spent.tcp_bytes / measure.steps for measure in measures),
        "model_bytes": trainers[0].model_bytes,
        "phases_s": {
            phase: fmean(measure.phases_s[phase] for measure in trainers) for phase in trainers[0].phases_s
        },
        "step_s": [[round(seconds, 6) for seconds in measure.step_s] for measure in trainers],
    }


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median of every figure over several runs, trainer by trainer where there is one for each.

    What belongs to its round alone, phases and single steps, is left out.
    """
    return {
        name: [median(values) for values in zip(*(run[name] for run in runs), strict=True)]
        if isinstance(runs[0][name], list)
        else median(run[name] for run in runs)
        for name in runs[0]
        if name not in _ONLY_IN_ROUNDS
    }
