"""The end of a sweep and of a run: validate, keep the best weights, record, test."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.candidates import held_out_parts
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.evaluation.part_metrics import PartMetrics
from disttgl_hpc.grid.collectives import sleeping_sum
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.training.final_results import best_grid, final_results
from disttgl_hpc.training.resume import Job
from disttgl_hpc.training.timeline import RankFigures
from disttgl_hpc.training.trainer import Trainer

log = get_logger(__name__)

_POINTS = 40  # of the loss curve of a sweep


class LossCurve:
    """Mean loss of all trainers over consecutive steps: at most 40 points in a sweep of ``num_batches`` steps.

    It has the steps of this job only, so that of a resumed sweep is incomplete.
    """

    def __init__(self, num_batches: int) -> None:
        self._every = -(-num_batches // _POINTS)
        self._begin()

    def _begin(self) -> None:
        self._points: dict[str, list[float]] = {"step": [], "loss": [], "elapsed_s": []}
        self._sum, self._count, self._started_s = 0.0, 0, time.perf_counter()

    def add(self, step: int, mean_loss: float, *, ends_sweep: bool) -> None:
        """Add ``step`` of the whole run, which may be the last of a sweep."""
        self._sum += mean_loss
        self._count += 1
        if self._count == self._every or ends_sweep:
            self._points["step"].append(step + 1)
            self._points["loss"].append(round(self._sum / self._count, 6))
            self._points["elapsed_s"].append(round(time.perf_counter() - self._started_s, 4))
            self._sum, self._count = 0.0, 0

    def take(self) -> dict[str, list[float]]:
        """Return the points (step, loss, seconds since the sweep began) and reset the curve."""
        points = self._points
        self._begin()
        return points


class SweepEnds:
    """Evaluation between sweeps and at the end. Its methods are collective over all trainers."""

    def __init__(self, job: Job, memory: MemoryService, trainer: Trainer) -> None:
        self._job, self._memory, self._trainer = job, memory, trainer
        self._plan, self._grid, self._run = job.plan, job.grid, job.run
        self._best_score = job.best_score
        self._is_root = job.grid.trainer == 0
        self._validation, _ = held_out_parts(job.store.stream, job.config)
        self._evaluators: dict[str, Evaluator] = {}
        self._figures, self._curve = RankFigures(job.grid, trainer, memory), LossCurve(job.plan.num_batches)

    def note_step(self, step: int, mean_loss: float) -> None:
        """Add a step to the loss curve; mean_loss: over all its events."""
        self._curve.add(self._plan.before.steps + step, mean_loss, ends_sweep=step in self._plan.sweep_ends)

    def finish(
        self, step: int, totals: NDArray[np.float64], started_s: float, grid: str
    ) -> NDArray[np.float32]:
        """Validate the sweep that ends with ``step`` on a copy of its memory, and record it. Collective.

        grid: the grid of the sweep. Returns the copy (N, 2·dim_memory), updated by validation.
        """
        train_s = time.perf_counter() - started_s
        sleeping_sum(self._grid.trainer_comm, totals, self._job.config.timeout_s, "the sweep's losses")
        started_s = time.perf_counter()
        snapshot = self._memory.snapshot(step)
        metrics = self._evaluator(grid).evaluate(self._trainer.model, snapshot, self._validation)
        if metrics.score > self._best_score:
            self._best_score = metrics.score
            self._memory.flush()
            if self._is_root:
                self._run.keep_best(self._total(step), self._sweep(step), metrics.score)
        timing: dict[str, Any] = {"train_s": train_s, "evaluate_s": time.perf_counter() - started_s}
        timing |= {"course": self._curve.take()} | self._figures.gather(train_s, timing["evaluate_s"])
        if self._is_root:
            self._record(step, totals, metrics, timing)
        return snapshot

    def _record(
        self, step: int, totals: NDArray[np.float64], metrics: PartMetrics, timing: dict[str, Any]
    ) -> None:
        """Record and log a completed sweep."""
        loss, num_events = totals
        # A resumed sweep was trained by this job in part, or not at all.
        share = min(1.0, (step + 1 - self._job.start.step) / self._plan.num_batches)
        timing = {"events_per_s": share * num_events / timing["train_s"], **timing}
        record = {
            "sweep": self._sweep(step),
            "step": self._total(step),
            "events": int(num_events),
            "loss": loss / num_events,
            "validation": metrics.as_dict(),
            "timing": timing,
        }
        self._run.record("sweep", record)
        text = "sweep %d: loss %.4f, validation %s, %.0f events/s"
        log.info(text, record["sweep"], record["loss"], metrics.summary, timing["events_per_s"])

    def _sweep(self, step: int) -> int:
        """Number, from 1, of the run's sweep that ends with ``step`` of the plan."""
        return self._plan.before.sweeps + (step + 1) // self._plan.num_batches

    def _total(self, step: int) -> int:
        """Number of steps of the whole run after ``step`` of the plan."""
        return self._plan.before.steps + step + 1

    def _evaluator(self, grid: str) -> Evaluator:
        """Evaluator after training on ``grid``, whose batches determine the pending mail."""
        if grid not in self._evaluators:
            stream, config = self._job.store.stream, self._job.config
            batching = batching_of(stream, config, GridShape.parse(grid))
            team = _team(self._grid, self._memory)
            self._evaluators[grid] = Evaluator(stream, config, batching, self._trainer.inputs, team)
        return self._evaluators[grid]

    def test(self, snapshot: NDArray[np.float32]) -> None:
        """Evaluate the best weights with their memory, and record the result. Collective."""
        self._memory.flush()
        started_s = time.perf_counter()
        evaluator = self._evaluator(best_grid(self._run))
        results = final_results(self._run, evaluator, self._trainer.model, snapshot)
        if self._is_root:
            timing = {"evaluate_s": time.perf_counter() - started_s}
            self._run.record("test", {**results, "timing": timing})


def _team(grid: Grid, memory: MemoryService) -> Team:
    """All trainers share the scoring; those of a node share the memory."""
    return Team(
        index=grid.trainer,
        size=grid.shape.num_trainers,
        node_index=grid.local_trainer,
        node_size=grid.node_trainer_comm.size,
        fence=memory.fence,
        gather=grid.trainer_comm.gather,
        share=grid.trainer_comm.bcast,
    )
