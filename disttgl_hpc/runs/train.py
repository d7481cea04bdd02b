"""Training: every rank either serves the node memory or walks the schedule, step by step."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.memory import MemoryService
from disttgl_hpc.core.schedule import GridShape, num_steps
from disttgl_hpc.errors import TrainingError
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.parallel.client import open_memory
from disttgl_hpc.parallel.daemon import serve_memory
from disttgl_hpc.parallel.grid import Grid, check_slices
from disttgl_hpc.parallel.waiting import sleeping_barrier, sleeping_sum
from disttgl_hpc.runs.batches import batching_of, memory_sizes
from disttgl_hpc.runs.checkpoints import save
from disttgl_hpc.runs.directory import RunDirectory, run_settings
from disttgl_hpc.runs.evaluate import Evaluator, Team, final_results, held_out_parts
from disttgl_hpc.runs.trainer import Trainer
from disttgl_hpc.store.events import EventStore

log = get_logger(__name__)


def train(store: EventStore, config: TrainConfig, run: RunDirectory, world: Any) -> None:
    """Train on an event store with all ranks of ``world``, an MPI communicator (collective).

    Fills the run directory: config.json, metrics.jsonl, checkpoints. Raises GridError when the ranks do not fit
    the grid, before anything is allocated, and TrainingError when the loss is no longer a number.
    """
    torch.set_num_threads(config.threads)
    run.check_free()
    stream = store.stream
    grid = Grid.create(world, GridShape.parse(config.grid) if config.grid else None)
    check_slices(grid.shape, stream.split.train_end)
    for line in grid.roster():
        log.info("%s", line)
    num_batches = batching_of(stream, config, grid.shape).num_batches
    steps = num_steps(config.epochs, grid.shape, num_batches)
    sizes = memory_sizes(stream, config, grid.shape)
    sweep_ends = range(num_batches - 1, steps, num_batches)  # of replica 0, whose memory is evaluated
    if grid.is_daemon:
        serve_memory(grid, sizes, num_batches, steps, snapshots=sweep_ends, timeout_s=config.timeout_s)
    else:
        memory = open_memory(
            grid, sizes, num_batches, steps, snapshots=sweep_ends, timeout_s=config.timeout_s
        )
        _Training(store, config, run, grid, memory).run()
        memory.close()
    grid.free()


class _Training:
    """A trainer rank's walk through the schedule, and what all trainers do together between sweeps."""

    def __init__(
        self, store: EventStore, config: TrainConfig, run: RunDirectory, grid: Grid, memory: MemoryService
    ) -> None:
        self._config, self._run, self._grid, self._memory = config, run, grid, memory
        self._settings = run_settings(store, config, grid.shape)
        self._copy = np.empty((0, 2 * config.dim_memory), np.float32)  # of the memory, for evaluation
        self._is_root = grid.trainer == 0
        self._trainer = Trainer(store.stream, config, grid, memory)
        batching = self._trainer.sampler.batching
        self._num_batches = batching.num_batches
        self._evaluator = Evaluator(store.stream, config, batching, self._team())
        self._validation, _ = held_out_parts(store.stream, config)
        self._best_mrr = -math.inf

    def run(self) -> None:
        """Train; validate after each sweep of replica 0 and keep the best weights; test those at the end."""
        if self._is_root:
            self._run.create(self._settings)
        steps, totals, started_s = self._trainer.num_steps, np.zeros(2), time.perf_counter()
        with progress(steps, "training", unit="steps", shown=self._is_root) as bar:
            for step in range(steps):
                loss, num_events = self._trainer.step(step)
                _check_loss(loss, step)
                totals += loss, num_events
                bar.advance(1, f"loss {totals[0] / max(1, totals[1]):.4f}")
                if (step + 1) % self._num_batches == 0:
                    self._finish_sweep(step, totals, time.perf_counter() - started_s)
                    totals, started_s = np.zeros(2), time.perf_counter()
        self._test()

    def _finish_sweep(self, step: int, totals: NDArray[np.float64], train_s: float) -> None:
        """Keep the state after a sweep, validate on a copy of its memory, and record both. Collective."""
        sleeping_sum(self._grid.trainer_comm, totals, self._config.timeout_s, "the sweep's losses")
        started_s = time.perf_counter()
        self._copy = self._memory.snapshot(step)
        sweep = step // self._num_batches
        if self._is_root:
            # Before validation, which moves the copy on; the other trainers write it only after meeting us.
            attributes = {"step": step + 1, "sweep": sweep, **self._settings}
            save(
                self._run.last_checkpoint,
                self._trainer.model,
                self._trainer.optimiser,
                self._copy,
                attributes,
            )
        metrics = self._evaluator.evaluate(self._trainer.model, self._copy, self._validation)
        if metrics.mrr > self._best_mrr:
            self._best_mrr = metrics.mrr
            if self._is_root:
                self._run.keep_best()
        if self._is_root:
            loss, num_events = totals
            timing = {
                "train_s": train_s,
                "evaluate_s": time.perf_counter() - started_s,
                "events_per_s": num_events / train_s,
                "phases_s": self._trainer.clock.take(),
            }
            self._run.record(
                "sweep",
                {
                    "sweep": sweep,
                    "step": step + 1,
                    "loss": loss / num_events,
                    "validation": metrics.as_dict(),
                    "timing": timing,
                },
            )
            log.info(
                "sweep %d: loss %.4f, validation MRR %.4f, %.0f events/s",
                sweep + 1,
                loss / num_events,
                metrics.mrr,
                timing["events_per_s"],
            )

    def _test(self) -> None:
        """Evaluate the best weights with the memory they left, and record the result. Collective."""
        sleeping_barrier(self._grid.trainer_comm, self._config.timeout_s, "the best checkpoint to be written")
        started_s = time.perf_counter()
        results = final_results(self._run, self._evaluator, self._trainer.model, self._copy)
        if self._is_root:
            timing = {"evaluate_s": time.perf_counter() - started_s}
            self._run.record("test", {**results, "timing": timing})

    def _team(self) -> Team:
        """All trainers share the scoring; those of a node share the memory it is done with."""
        grid = self._grid
        return Team(
            index=grid.trainer,
            size=grid.shape.num_trainers,
            node_index=grid.local_trainer,
            node_size=grid.node_trainer_comm.size,
            fence=self._memory.fence,
            gather=grid.trainer_comm.allgather,
        )


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss must be a number, it is {loss} in step {step}: lower --lr, or look for extreme features"
        )
