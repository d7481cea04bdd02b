"""Parts of all measurements: counters of a rank, figures of a run, and a trainer in this process.

The trainer has no daemon, no evaluation and no files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from statistics import fmean, median
from typing import Any

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import GridError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import ALONE
from disttgl_hpc.memory.client import MemoryClient, open_memory
from disttgl_hpc.memory.node_memory import Beginning, MemoryRun, MemoryService
from disttgl_hpc.planning.machine import tcp_bytes_sent
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import GraphSource
from disttgl_hpc.training.trainer import Trainer

_ONLY_IN_ROUNDS = ("step_s", "phases_s")


@dataclass(frozen=True)
class Counters:
    """Time and traffic of a rank, since its start or, as a difference, over some steps.

    elapsed_s: wall clock. cpu_s: user and system time of all its threads. memory_wait_s, gradient_wait_s: in waits
    for replies of the daemon, and in sums of gradients. gradient_bytes: passed to sums between nodes. tcp_bytes:
    sent through TCP.
    """

    elapsed_s: float
    cpu_s: float
    memory_wait_s: float
    gradient_wait_s: float
    gradient_bytes: int
    tcp_bytes: int

    @classmethod
    def now(cls, trainer: Trainer | None = None, memory: MemoryService | None = None) -> Counters:
        """Counters of this rank: a trainer with its memory service, or a daemon."""
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

    def __add__(self, other: Counters) -> Counters:
        """The sum of both."""
        return Counters(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counters)))


@dataclass(frozen=True)
class Measure:
    """What one rank spent on ``steps`` steps. events: trained in them; a daemon trains none.

    step_s: seconds of each step of a trainer, without its waits for other ranks. phases_s: seconds of all of them
    by phase, waits included. model_bytes: size of its gradients.
    """

    is_daemon: bool
    steps: int
    events: int
    spent: Counters
    step_s: tuple[float, ...] = ()
    phases_s: dict[str, float] = field(default_factory=dict)
    model_bytes: int = 0

    def __add__(self, later: Measure) -> Measure:
        """The sum of two measures of the same rank."""
        return Measure(
            self.is_daemon,
            self.steps + later.steps,
            self.events + later.events,
            self.spent + later.spent,
            self.step_s + later.step_s,
            {phase: self.phases_s[phase] + later.phases_s[phase] for phase in self.phases_s},
            self.model_bytes,
        )


def figures(measures: Sequence[Measure], *, num_nodes: int) -> dict[str, Any]:
    """Figures of one run from the measures of its ranks.

    events_per_s: events of all trainers per second of the slowest; an event counts each time it is trained.
    trainer_cpu_us, daemon_cpu_us: CPU-microseconds an event, of all trainers, of all daemons.
    daemon_share: CPU time of a daemon over that of a trainer, for the same steps. elapsed_s, and memory_wait_s and
    gradient_wait_s, one value a trainer: seconds in the measured steps. waiting_share: share of the trainers' time
    spent in both waits. gradient_bytes, tcp_bytes: of all ranks in a step (see jobs/benchmarks/README.md).
    model_bytes: of one trainer's gradients. phases_s: seconds by phase, mean over trainers. step_s: of every
    trainer, seconds of each step without its waits for other ranks.
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
    """Median of every figure over several runs, trainer by trainer if a figure has a value for each.

    Phases and single steps, which belong to one round, are left out.
    """
    return {
        name: [median(values) for values in zip(*(run[name] for run in runs), strict=True)]
        if isinstance(runs[0][name], list)
        else median(run[name] for run in runs)
        for name in runs[0]
        if name not in _ONLY_IN_ROUNDS
    }


Step = Callable[[int], tuple[float, int]]


def check_alone(world: Any, what: str) -> None:
    """Raise GridError unless ``world``, an MPI communicator, has one process. what: the subject of measurement."""
    if world.size != 1:
        raise GridError(
            f"{what} is measured in one process, but {world.size} were started: leave out the launcher"
        )


@contextmanager
def trainer_alone(  # noqa: PLR0917
    stream: EventStream,
    config: TrainConfig,
    plan: RunPlan,
    world: Any,
    first_step: int,
    graphs: GraphSource | None = None,
) -> Iterator[Trainer]:
    """A trainer that begins with ``first_step`` of ``plan`` on an empty node memory. graphs: see Trainer."""
    grid = Grid.create(world, ALONE)
    memory_run = MemoryRun(
        sizes=plan.sizes,
        num_batches=plan.num_batches,
        num_steps=plan.num_steps,
        beginning=Beginning(first_step),
        timeout_s=config.timeout_s,
    )
    memory = open_memory(grid, memory_run)
    trainer = Trainer(stream, config, plan, grid, memory, graphs)
    trainer.go_on(first_step, None)
    yield trainer
    trainer.close()
    memory.close()
    grid.free()


def timed(step: Step, steps: range) -> dict[str, float]:
    """Events trained in ``steps``, CPU-µs (user and system, all threads) an event, and events/s."""
    elapsed_s, cpu_s = time.perf_counter(), time.process_time()
    events = sum(step(number)[1] for number in steps)
    elapsed_s, cpu_s = time.perf_counter() - elapsed_s, time.process_time() - cpu_s
    return {"events": events, "cpu_us": 1e6 * cpu_s / events, "events_per_s": events / elapsed_s}
