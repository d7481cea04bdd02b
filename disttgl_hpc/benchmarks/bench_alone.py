"""One trainer in this process, as measurements need it: without a daemon, evaluation and files, its steps timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import GridError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.lasting import Beginning
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import GraphSource
from disttgl_hpc.training.trainer import Trainer

ALONE = GridShape(1, 1, 1)
Step = Callable[[int], tuple[float, int]]


def check_alone(world: Any, what: str) -> None:
    """Raise GridError unless ``world``, an MPI communicator, is one process. what: is measured."""
    if world.size != 1:
        raise GridError(
            f"{what} is measured in one process, started were {world.size}: leave out the launcher"
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
    """A trainer that begins with ``first_step`` of ``plan`` on an empty node memory; ``graphs``: see Trainer."""
    grid = Grid.create(world, ALONE)
    memory = open_memory(
        grid,
        plan.sizes,
        plan.num_batches,
        plan.num_steps,
        beginning=Beginning(first_step),
        timeout_s=config.timeout_s,
    )
    trainer = Trainer(stream, config, plan, grid, memory, graphs)
    trainer.go_on(first_step, None)
    yield trainer
    trainer.close()
    memory.close()
    grid.free()


def timed(step: Step, steps: range) -> dict[str, float]:
    """Events trained in ``steps``, CPU-µs (user and system, all threads) for each, and events a second."""
    elapsed_s, cpu_s = time.perf_counter(), time.process_time()
    events = sum(step(number)[1] for number in steps)
    elapsed_s, cpu_s = time.perf_counter() - elapsed_s, time.process_time() - cpu_s
    return {"events": events, "cpu_us": 1e6 * cpu_s / events, "events_per_s": events / elapsed_s}
