"""What a training step costs in one process, phase by phase, and what loading its batches costs.

The measured code is :class:`~.trainer.Trainer` without evaluation and files. ``measure_training`` compares its CPU
time with a lower bound from its arithmetic, and with another program; ``measure_loader`` compares ways of loading.
Whatever is compared takes turns, round by round, so that a drifting machine disturbs all alike.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from disttgl_hpc.benchmarks.measuring import check_alone, medians, timed, trainer_alone
from disttgl_hpc.benchmarks.pyg import PygTrainer, check_comparable
from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.events.stream import EventStream, check_training
from disttgl_hpc.grid.schedule import ALONE, Coordinates
from disttgl_hpc.grid.spans import PhaseClock
from disttgl_hpc.log import progress
from disttgl_hpc.model.products import choose_product, prepare_process
from disttgl_hpc.planning.machine import processor, versions
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import BatchSampler, GraphSource, StoredGraphs
from disttgl_hpc.sampling.pair_features import DIM_PAIR
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.trainer import Trainer

_COUNTED_BATCHES = 5
_LOADING = ("sample", "read", "inputs")
"""Phases of a step in which a trainer waits for its inputs."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Steps to measure in each of ``rounds`` rounds, after ``warmup`` others.

    first_step: where in the stream the first ones begin, with an empty node memory.
    """

    steps: int
    warmup: int
    rounds: int
    first_step: int = 0

    @property
    def warmup_steps(self) -> range:
        """Steps before the measured ones."""
        return range(self.first_step, self.first_step + self.warmup)

    def as_dict(self) -> dict[str, int]:
        """Plain values for a record."""
        return {"steps": self.steps, "warmup": self.warmup, "rounds": self.rounds}


def measure_training(
    stream: EventStream, config: TrainConfig, plan: TrainingPlan, world: Any, *, against_pyg: bool = False
) -> dict[str, Any]:
    """Train by ``plan`` in one process; rounds follow each other through the stream.

    Returns plan, machine, ``own`` (medians over rounds of :func:`~.measuring.timed`, and of CPU-µs an event by
    phase), ``floor`` (see :func:`_floor`), and peak_rss_mib before PyTorch Geometric was loaded. ``against_pyg``
    adds its figures as ``pyg`` and the median over rounds of its CPU time over ours as ``ratio``. Raises GridError
    for more than one rank, ConfigError without training events, and if PyTorch Geometric is missing or lacks a
    setting.
    """
    check_alone(world, "a step")
    check_training(stream)
    if against_pyg:
        check_comparable(config)
    prepare_process(config.threads)
    # The CPU time of a loading thread would count as whatever phase the step is in.
    config = replace(config, prefetch=0)
    measured = plan.warmup_steps.stop
    run = RunPlan.of(stream, config, ALONE, measured + plan.rounds * plan.steps)
    own, others, rates, peak_rss_mib = [], [], [], 0.0
    peer: PygTrainer | None = None
    with (
        trainer_alone(stream, config, run, world, plan.first_step) as trainer,
        progress(plan.rounds, "measuring", unit="rounds") as bar,
    ):
        trainer.clock = PhaseClock(time.process_time)
        trainer.rehearse()
        for step in plan.warmup_steps:
            trainer.step(step)
        for number in range(plan.rounds):
            steps = range(measured + number * plan.steps, measured + (number + 1) * plan.steps)
            trainer.clock.take()
            figures = timed(trainer.step, steps)
            events, phases = figures["events"], trainer.clock.take()
            own.append(figures | {f"{name}_us": 1e6 * spent_s / events for name, spent_s in phases.items()})
            if number == 0:  # before the arrays of the rates and the other program
                peak_rss_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rates.append(_rates(config))
            if against_pyg:
                if peer is None:
                    peer = PygTrainer(stream, config)
                    for step in plan.warmup_steps:
                        peer.step(step)
                others.append(timed(peer.step, steps))
            bar.advance(1)
        counted = np.linspace(measured, run.num_steps - 1, _COUNTED_BATCHES).round().astype(int)
        sampler = BatchSampler(stream, config, run.shape, run.batching, Coordinates(0, 0, 0))
        work = _work(trainer, sampler, np.unique(counted).tolist())
    record: dict[str, Any] = {
        "stream": stream.name,
        **plan.as_dict(),
        "machine": {"processor": processor(), "versions": versions()},
        "settings": config.as_dict(),
        "own": medians(own),
        "floor": _floor(work, medians(rates)),
        "peak_rss_mib": peak_rss_mib,
    }
    if others:
        ratios = [other["cpu_us"] / mine["cpu_us"] for other, mine in zip(others, own, strict=True)]
        record |= {"pyg": medians(others), "ratio": median(ratios)}
    return record


def _rates(config: TrainConfig) -> dict[str, float]:
    """Best rates of one thread, in CPU time: products as large as those of the memory update, and copies."""
    product, plain = choose_product(config.precision, "cpu"), choose_product("float32", "cpu")
    a, b, source = torch.randn(1536, 512), torch.randn(512, 320), np.ones(8 << 20, np.float32)
    target = np.empty_like(source)
    product_s, plain_s = _shortest(lambda: product(a, b)), _shortest(lambda: plain(a, b))
    copy_s = _shortest(lambda: np.copyto(target, source))
    flop = 2 * a.numel() * b.shape[1]
    return {
        "gflops": flop / product_s / 1e9,
        "float32_gflops": flop / plain_s / 1e9,
        "copy_gb_s": 2 * source.nbytes / copy_s / 1e9,
    }


def _shortest(work: Callable[[], object], times: int = 5) -> float:
    """CPU seconds of the shortest of several runs."""
    spent = []
    for _ in range(times):
        started_s = time.process_time()
        work()
        spent.append(time.process_time() - started_s)
    return min(spent)


def _work(trainer: Trainer, sampler: BatchSampler, steps: Sequence[int]) -> dict[str, float]:
    """Arithmetic and traffic of an event, forward and backward, counted on the batches of ``steps``.

    product_mflop: of matrix products. slot_mflop: of attention over neighbour slots. kilobytes: edge features read
    in place (twice by attention), node features, static and node memory read, weighted sums written and read,
    forward and backward.
    """
    config, stream = sampler.config, sampler.stream
    d, t, dim, e, heads = (
        config.dim_memory,
        config.dim_time,
        config.dim_embedding,
        stream.dim_edge,
        config.num_heads,
    )
    wide, item = d + t + e + 1, 0 if stream.edge_features is None else stream.edge_features.dtype.itemsize
    tables = [table for table in (stream.node_features, stream.static_memory) if table is not None]
    given, given_bytes = sum(len(table[0]) for table in tables), sum(table[0].nbytes for table in tables)
    learned = d if config.static == CO_TRAINED else 0
    totals, events = np.zeros(3), 0
    for step in steps:
        work = trainer.work(step)
        if work is None:
            continue
        batch = sampler.sample(work)
        mfg, mailed = batch.passes[0].mfg, len(batch.passes[0].mail.rows)
        roots, nodes, slots = len(mfg.roots), len(np.unique(mfg.roots)), int(mfg.counts.sum())
        # Inputs without a gradient take two products, those with one three. The head multiplies each root once.
        twice = mailed * (3 * d * (2 * d + e) + d * d)
        seen = len(mfg.nodes) * (given + learned) * d
        thrice = mailed * 3 * d * t + (nodes + roots) * dim * wide + 2 * (nodes * d + roots * dim) * dim
        if config.pair_features:
            candidates = batch.num_events * (1 + config.negatives_per_event)
            twice += candidates * DIM_PAIR * dim
            thrice += candidates * dim * dim
        read = (2 * slots + mailed) * e * item + len(mfg.nodes) * (8 * d + given_bytes + 4 * learned)
        written = 4 * 4 * roots * heads * wide
        products = 2 * (2 * twice + 3 * thrice + (3 if learned else 2) * seen)
        totals += products, 2 * slots * heads * (4 * wide + 2 * (d + t)), read + written
        events += batch.num_events
    product_flop, slot_flop, num_bytes = totals / max(1, events)
    return {"product_mflop": product_flop / 1e6, "slot_mflop": slot_flop / 1e6, "kilobytes": num_bytes / 1e3}


def _floor(work: dict[str, float], rates: dict[str, float]) -> dict[str, float]:
    """Lower bound of CPU-µs an event: all arithmetic at the rate of large products, all bytes at that of a copy."""
    products_us = 1e3 * work["product_mflop"] / rates["gflops"]
    slots_us = 1e3 * work["slot_mflop"] / rates["float32_gflops"]  # in float32 whatever the products are in
    bytes_us = work["kilobytes"] / rates["copy_gb_s"]
    parts = {"products_us": products_us, "slots_us": slots_us, "bytes_us": bytes_us}
    return {**work, **rates, **parts, "cpu_us": sum(parts.values())}


@dataclass(frozen=True)
class _Way:
    """A way of loading. graphs: their source, None to sample them. prefetch: batches that are made ahead."""

    name: str
    graphs: GraphSource | None
    prefetch: int


def measure_loader(
    store: EventStore, config: TrainConfig, plan: TrainingPlan, world: Any, batches: Path | None = None
) -> dict[str, Any]:
    """Train in one process with each way of loading; ``batches``, a batch store, adds those from it.

    Each run is of the same steps. Returns plan, machine and, for each way, medians over the rounds of the
    figures of :func:`_loading`. Raises GridError for more than one rank, ConfigError without training events,
    and StoreError for a batch store of other settings, see ``StoredGraphs.open``.
    """
    check_alone(world, "a loader")
    check_training(store.stream)
    prepare_process(config.threads)
    depths = sorted({0, config.prefetch})
    ways = [_Way("live", None, depth) for depth in depths]
    if batches is not None:
        stored = StoredGraphs.open(batches, store, config, minibatch=1)
        ways += [_Way("stored", stored, depth) for depth in depths]
    rounds: list[list[dict[str, float]]] = [[] for _ in ways]
    with progress(plan.rounds * len(ways), "measuring", unit="runs") as bar:
        for _ in range(plan.rounds):
            for way, found in zip(ways, rounds, strict=True):
                found.append(_load(store, config, plan, world, way))
                bar.advance(1)
    return {
        "stream": store.stream.name,
        **plan.as_dict(),
        "machine": {"processor": processor(), "versions": versions()},
        "settings": config.as_dict(),
        "ways": [
            {"graphs": way.name, "prefetch": way.prefetch, **medians(found)}
            for way, found in zip(ways, rounds, strict=True)
        ],
    }


def _load(
    store: EventStore, config: TrainConfig, plan: TrainingPlan, world: Any, way: _Way
) -> dict[str, float]:
    """Figures of one run with one way of loading."""
    settings = replace(config, prefetch=way.prefetch)
    measured = plan.warmup_steps.stop
    run = RunPlan.of(store.stream, settings, ALONE, measured + plan.steps)
    with trainer_alone(store.stream, settings, run, world, plan.first_step, way.graphs) as trainer:
        for step in plan.warmup_steps:
            trainer.step(step)
        trainer.clock.take()
        spent = timed(trainer.step, range(measured, run.num_steps))
        return _loading(trainer.clock.take(), spent)


def _loading(phases: dict[str, float], spent: dict[str, float]) -> dict[str, float]:
    """Microseconds an event of the trainer's own time in each loading phase and in a step, and of CPU time.

    loading_share: share of a step that the trainer waits for its batch, memory and inputs.
    """
    own = {f"{phase}_us": 1e6 * phases[phase] / spent["events"] for phase in _LOADING}
    step_us = 1e6 / spent["events_per_s"]
    loading_share = sum(own.values()) / step_us
    return {**own, "step_us": step_us, "cpu_us": spent["cpu_us"], "loading_share": loading_share}
