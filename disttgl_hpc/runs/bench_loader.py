"""What it costs a trainer to come by its batches: sampled or read, in its own time or in a thread ahead of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.lasting import Beginning
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.errors import GridError
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.nn.processor import prepare_process
from disttgl_hpc.parallel.client import open_memory
from disttgl_hpc.parallel.grid import Grid
from disttgl_hpc.runs.batches import GraphSource, StoredGraphs
from disttgl_hpc.runs.machine import processor, versions
from disttgl_hpc.runs.plan import RunPlan
from disttgl_hpc.runs.trainer import Trainer
from disttgl_hpc.store.events import EventStore

log = get_logger(__name__)
LOADING = ("sample", "read", "inputs")
"""Phases of a step in which a trainer waits for what it is going to compute with."""


@dataclass(frozen=True, kw_only=True)
class LoaderPlan:
    """Steps to measure after ``warmup`` others, in ``rounds`` in which every way of loading has its turn.

    first_step: where in the stream they begin, with an empty node memory.
    """

    steps: int = 100
    warmup: int = 10
    rounds: int = 5
    first_step: int = 0


@dataclass(frozen=True)
class _Way:
    """A way of loading: where graphs come from, None being sampled, and how many batches are made ahead."""

    name: str
    graphs: GraphSource | None
    prefetch: int


def measure_loader(
    store: EventStore, config: TrainConfig, plan: LoaderPlan, world: Any, batches: Path | None = None
) -> dict[str, Any]:
    """Train some steps in one process with each way of loading; ``batches`` adds those from a batch store.

    Returns plan, machine and, for each way, medians over the rounds of the figures of :func:`_figures`. Raises
    GridError for more than one rank, StoreError for a batch store of other settings, see ``StoredGraphs.open``.
    """
    if world.size != 1:
        raise GridError(
            f"a loader is measured in one process, started were {world.size}: leave out the launcher"
        )
    prepare_process(config.threads)
    stored = StoredGraphs.open(batches, store, config, minibatch=1) if batches else None
    depths = sorted({0, config.prefetch})
    ways = [_Way("live", None, depth) for depth in depths]
    ways += [_Way("stored", stored, depth) for depth in depths if stored is not None]
    rounds: list[list[dict[str, float]]] = [[] for _ in ways]
    with progress(plan.rounds * len(ways), "measuring", unit="runs") as bar:
        for _ in range(plan.rounds):
            for way, figures in zip(ways, rounds, strict=True):
                figures.append(_train(store, config, plan, world, way))
                bar.advance(1)
    results = [
        {
            "graphs": way.name,
            "prefetch": way.prefetch,
            **{name: median(figures[name] for figures in own) for name in own[0]},
        }
        for way, own in zip(ways, rounds, strict=True)
    ]
    machine = {"processor": processor(), "versions": versions()}
    plan_facts = {"steps": plan.steps, "warmup": plan.warmup, "rounds": plan.rounds}
    return {"stream": store.stream.name, **plan_facts, "machine": machine, "ways": results}


def _train(
    store: EventStore, config: TrainConfig, plan: LoaderPlan, world: Any, way: _Way
) -> dict[str, float]:
    """One run of one way of loading."""
    settings = replace(config, prefetch=way.prefetch)
    grid = Grid.create(world, GridShape(1, 1, 1))
    begin, measured = plan.first_step, plan.first_step + plan.warmup
    run = RunPlan.of(store.stream, settings, grid.shape, measured + plan.steps)
    memory = open_memory(
        grid,
        run.sizes,
        run.num_batches,
        run.num_steps,
        beginning=Beginning(begin),
        timeout_s=settings.timeout_s,
    )
    trainer = Trainer(store.stream, settings, run, grid, memory, way.graphs)
    trainer.go_on(begin, None)
    for step in range(begin, measured):
        trainer.step(step)
    trainer.clock.take()
    started_s, cpu_s = time.perf_counter(), time.process_time()
    events = sum(trainer.step(step)[1] for step in range(measured, run.num_steps))
    elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
    trainer.close()
    memory.close()
    grid.free()
    return _figures(trainer.clock.take(), events, elapsed_s, cpu_s)


def _figures(phases: dict[str, float], events: int, elapsed_s: float, cpu_s: float) -> dict[str, float]:
    """Microseconds an event: of each loading phase on the trainer's own path, of a step, of all threads' CPU time.

    loading_share: of the step's time, what the trainer waited for its batch, its memory and its inputs.
    """
    own = {f"{phase}_us": 1e6 * phases[phase] / events for phase in LOADING}
    return own | {
        "step_us": 1e6 * elapsed_s / events,
        "cpu_us": 1e6 * cpu_s / events,
        "loading_share": sum(phases[phase] for phase in LOADING) / elapsed_s,
    }
