"""What all trainers do together after a sweep and after the last: validate, keep the best, record, test.

How the loss went within a sweep, of which its mean tells nothing: points that cost nothing, for curves.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.evaluation.candidates import held_out_parts
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.evaluation.part_metrics import PartMetrics
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import sleeping_sum
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.planning.run_plan import RunPlan, batching_of
from disttgl_hpc.training.final_results import best_grid, final_results
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.timeline import RankFigures
from disttgl_hpc.training.trainer import Trainer

log = get_logger(__name__)


_POINTS = 40


class Course:
    """Mean loss over all trainers of consecutive steps, at most 40 points of a sweep of ``num_batches`` steps.

    Of the steps that this job took: a sweep that was resumed has those of its rest.
    """

    def __init__(self, num_batches: int) -> None:
        self._every = -(-num_batches // _POINTS)
        self._begin()

    def _begin(self) -> None:
        self._points: dict[str, list[float]] = {"step": [], "loss": [], "elapsed_s": []}
        self._sum, self._count, self._started_s = 0.0, 0, time.perf_counter()

    def add(self, step: int, mean_loss: float, *, ends_sweep: bool) -> None:
        """Count ``step`` of the whole run, which may be the last of a sweep."""
        self._sum += mean_loss
        self._count += 1
        if self._count == self._every or ends_sweep:
            self._points["step"].append(step + 1)
            self._points["loss"].append(round(self._sum / self._count, 6))
            self._points["elapsed_s"].append(round(time.perf_counter() - self._started_s, 4))
            self._sum, self._count = 0.0, 0

    def take(self) -> dict[str, list[float]]:
        """Of each point the run's steps until then, the loss, and seconds since the sweep began; and start anew."""
        points = self._points
        self._begin()
        return points


class SweepEnds:
    """Evaluation between sweeps and at the end. Its methods are collective over all trainers.

    first_step: where this job began, before which nothing was timed. best_score: of the sweeps before that.
    """

    def __init__(  # noqa: PLR0917
        self,
        stream: EventStream,
        config: TrainConfig,
        run: RunDirectory,
        plan: RunPlan,
        grid: Grid,
        memory: MemoryService,
        trainer: Trainer,
        *,
        first_step: int,
        best_score: float,
    ) -> None:
        self._stream, self._config, self._run, self._plan = stream, config, run, plan
        self._grid, self._memory, self._trainer = grid, memory, trainer
        self._first_step, self._best_score = first_step, best_score
        self._is_root = grid.trainer == 0
        self._validation, _ = held_out_parts(stream, config)
        self._evaluators: dict[str, Evaluator] = {}
        self._figures, self._course = RankFigures(grid, trainer, memory), Course(plan.num_batches)

    def note_step(self, step: int, mean_loss: float) -> None:
        """A step was taken; mean_loss: over all its events."""
        self._course.add(self._plan.before.steps + step, mean_loss, ends_sweep=step in self._plan.sweep_ends)

    def finish(
        self, step: int, totals: NDArray[np.float64], started_s: float, grid: str
    ) -> NDArray[np.float32]:
        """Validate the sweep that ends with ``step`` on a copy of its memory, and record it. Collective.

        grid: on which it was trained. Returns the copy (N, 2·dim_memory), which validation has moved on.
        """
        train_s = time.perf_counter() - started_s
        sleeping_sum(self._grid.trainer_comm, totals, self._config.timeout_s, "the sweep's losses")
        started_s = time.perf_counter()
        snapshot = self._memory.snapshot(step)
        metrics = self._evaluator(grid).evaluate(self._trainer.model, snapshot, self._validation)
        if metrics.score > self._best_score:
            self._best_score = metrics.score
            self._memory.flush()
            if self._is_root:
                self._run.keep_best(self._total(step), self._sweep(step), metrics.score)
        timing: dict[str, Any] = {"train_s": train_s, "evaluate_s": time.perf_counter() - started_s}
        timing |= {"course": self._course.take()} | self._figures.gather(train_s, timing["evaluate_s"])
        if self._is_root:
            self._record(step, totals, metrics, timing)
        return snapshot

    def _record(
        self, step: int, totals: NDArray[np.float64], metrics: PartMetrics, timing: dict[str, Any]
    ) -> None:
        """Record a finished sweep and tell it."""
        loss, num_events = totals
        # A sweep that was resumed was trained here in part, or not at all.
        share = min(1.0, (step + 1 - self._first_step) / self._plan.num_batches)
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
        """Number of the run's sweep that ends with ``step`` of the plan, from 1."""
        return self._plan.before.sweeps + (step + 1) // self._plan.num_batches

    def _total(self, step: int) -> int:
        """Steps of the whole run after ``step`` of the plan."""
        return self._plan.before.steps + step + 1

    def _evaluator(self, grid: str) -> Evaluator:
        """Evaluation as it follows training on ``grid``, whose batches decide which mail is pending."""
        if grid not in self._evaluators:
            batching = batching_of(self._stream, self._config, GridShape.parse(grid))
            team = _team(self._grid, self._memory)
            self._evaluators[grid] = Evaluator(
                self._stream, self._config, batching, self._trainer.inputs, team
            )
        return self._evaluators[grid]

    def test(self, snapshot: NDArray[np.float32]) -> None:
        """Evaluate the best weights with the memory they left, and record the result. Collective."""
        self._memory.flush()
        started_s = time.perf_counter()
        evaluator = self._evaluator(best_grid(self._run))
        results = final_results(self._run, evaluator, self._trainer.model, snapshot)
        if self._is_root:
            timing = {"evaluate_s": time.perf_counter() - started_s}
            self._run.record("test", {**results, "timing": timing})


def _team(grid: Grid, memory: MemoryService) -> Team:
    """All trainers share the scoring; those of a node share the memory it is done with."""
    return Team(
        index=grid.trainer,
        size=grid.shape.num_trainers,
        node_index=grid.local_trainer,
        node_size=grid.node_trainer_comm.size,
        fence=memory.fence,
        gather=grid.trainer_comm.gather,
        share=grid.trainer_comm.bcast,
    )
