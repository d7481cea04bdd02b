"""What it costs a trainer to come by its batches: sampled or read, in its own time or in a thread ahead of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from disttgl_hpc.benchmarks.measuring import check_alone, medians, timed, trainer_alone
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.stream import check_training
from disttgl_hpc.grid.schedule import ALONE
from disttgl_hpc.log import progress
from disttgl_hpc.model.threads import prepare_process
from disttgl_hpc.planning.machine import processor, versions
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import GraphSource, StoredGraphs
from disttgl_hpc.store.event_store import EventStore

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
    check_alone(world, "a loader")
    check_training(store.stream)
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
            **medians(own),
        }
        for way, own in zip(ways, rounds, strict=True)
    ]
    machine = {"processor": processor(), "versions": versions()}
    plan_facts = {"steps": plan.steps, "warmup": plan.warmup, "rounds": plan.rounds}
    facts = {"stream": store.stream.name, **plan_facts, "machine": machine, "settings": config.as_dict()}
    return {**facts, "ways": results}


def _train(
    store: EventStore, config: TrainConfig, plan: LoaderPlan, world: Any, way: _Way
) -> dict[str, float]:
    """One run of one way of loading."""
    settings = replace(config, prefetch=way.prefetch)
    begin, measured = plan.first_step, plan.first_step + plan.warmup
    run = RunPlan.of(store.stream, settings, ALONE, measured + plan.steps)
    with trainer_alone(store.stream, settings, run, world, begin, way.graphs) as trainer:
        for step in range(begin, measured):
            trainer.step(step)
        trainer.clock.take()
        figures = timed(trainer.step, range(measured, run.num_steps))
        return _figures(trainer.clock.take(), figures)


def _figures(phases: dict[str, float], spent: dict[str, float]) -> dict[str, float]:
    """Microseconds an event: of each loading phase on the trainer's own path, of a step, of all threads' CPU time.

    loading_share: of the step's time, what the trainer waited for its batch, its memory and its inputs.
    """
    own = {f"{phase}_us": 1e6 * phases[phase] / spent["events"] for phase in LOADING}
    step_us = 1e6 / spent["events_per_s"]
    loading_share = sum(own.values()) / step_us
    return {**own, "step_us": step_us, "cpu_us": spent["cpu_us"], "loading_share": loading_share}
