"""Training: every rank either serves the node memory or walks the schedule, step by step.

What happens when a loss or a gradient is no number any more.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import PeerError, TrainingError
from disttgl_hpc.evaluation.candidates import check_negatives
from disttgl_hpc.events.stream import check_split
from disttgl_hpc.grid.collectives import decide_together, together
from disttgl_hpc.grid.gradients import GradientSum
from disttgl_hpc.grid.job import StopRequest, stop_signals, watching
from disttgl_hpc.grid.process_grid import Grid, check_slices
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.node_memory import MemoryRun, MemoryService
from disttgl_hpc.model.input_builder import device_of
from disttgl_hpc.model.threads import prepare_process
from disttgl_hpc.planning.grid_choice import grid_shape
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import GraphSource, StoredGraphs
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.checkpoints import RunCheckpoints, model_arrays, static_arrays, trainer_arrays
from disttgl_hpc.training.resume import Start, find_start
from disttgl_hpc.training.run_directory import RunDirectory, run_settings
from disttgl_hpc.training.run_events import check_batches_fit, with_static_memory, with_task
from disttgl_hpc.training.sweep_ends import SweepEnds
from disttgl_hpc.training.timeline import Timeline, traced_steps
from disttgl_hpc.training.trainer import Trainer, compile_once

log = get_logger(__name__)


def fail_together(comm: Any, run: RunDirectory, gradients: GradientSum, step: int, loss: float) -> None:
    """End training in ``step``, after whose sum all trainers know that something was no number. Collective.

    Raises TrainingError on the first trainer of ``comm`` whose own loss or gradients are to blame, and PeerError on
    the others.
    """
    own = ""
    if not gradients.is_own_finite:
        own = (
            f"loss must be a number, it is {loss}" if not math.isfinite(loss) else "gradients must be numbers"
        )
    complaints = comm.allgather(own)
    guilty = next((trainer for trainer, complaint in enumerate(complaints) if complaint), 0)
    folders = run.whole_checkpoints
    intact = (
        f"the last checkpoint, {folders[-1].name}, is intact" if folders else "there is no checkpoint yet"
    )
    text = (
        f"the {complaints[guilty] or 'sum of all gradients must be a number'} in step {step}: lower --lr and train "
        f"again, or look for extreme features; {intact}"
    )
    if comm.rank == guilty:
        raise TrainingError(text)
    raise PeerError(f"trainer {guilty}: {text}")


def train(
    store: EventStore,
    config: TrainConfig,
    run: RunDirectory,
    world: Any,
    batches: Path | None = None,
    *,
    resume: bool = False,
) -> bool:
    """Train on an event store with all ranks of ``world``, an MPI communicator (collective).

    ``batches``: a batch store to read the graphs from; without it they are sampled, and are the same.
    Fills the run directory: config.json, metrics.jsonl, checkpoints; with ``resume`` it goes on with what is there.
    Returns whether the run is finished: not so if a signal has asked to stop, after a checkpoint. Raises
    ConfigError or GridError when run directory, split or ranks do not fit, and StoreError for a batch store of
    other settings, before anything is allocated; StoreError for a checkpoint that cannot be written or read,
    TrainingError when a loss is no longer a number.
    """
    prepare_process(config.threads)
    if not resume:
        run.check_free()
    check_split(store.stream)
    store = with_task(with_static_memory(store, config), config)
    check_negatives(store.stream, config)
    if batches is not None:
        check_batches_fit(config)
    grid = Grid.create(world, grid_shape(store.stream, config, world))
    check_slices(grid.shape, store.stream.split.train_end)
    decide_together(grid.world, store.check_contents)
    _check_device(config, grid)
    graphs = StoredGraphs.open(batches, store, config, grid.shape.minibatch) if batches else None
    settings = run_settings(store, config, grid.shape, batches)
    with stop_signals() as stop, ExitStack() as lock:
        decide_together(grid.world, lambda: lock.enter_context(run.locked()))
        fresh = Start(grid=grid.shape.option)
        start = decide_together(
            grid.world, lambda: find_start(run, grid.shape, settings, store) if resume else fresh
        )
        plan = RunPlan.of(store.stream, config, grid.shape, before=start.before)
        if start.step == plan.num_steps and (start.is_tested or not plan.before.same_events):
            log.info("%s is finished: nothing to do, unless --epochs is raised", run.path)
            is_complete = True
        else:
            first_step = plan.before.steps + start.step
            best_score = decide_together(
                grid.world, lambda: run.begin(settings, first_step, is_validated=start.is_validated)
            )
            job = _Job(store, graphs, config, settings, run, grid, plan, start, best_score)
            is_complete = _take_part(job, stop)
    grid.free()
    return is_complete


def _check_device(config: TrainConfig, grid: Grid) -> None:
    """Raise ConfigError or PeerError on all ranks unless every trainer has a device to compute on. Collective."""
    with together(grid.world, config.timeout_s):
        if not grid.is_daemon:
            device_of(config, grid.local_trainer)


@dataclass(frozen=True)
class _Job:
    """What all ranks know when they begin: input, settings, run directory, who does what, and from where."""

    store: EventStore
    graphs: GraphSource | None
    config: TrainConfig
    settings: dict[str, Any]
    run: RunDirectory
    grid: Grid
    plan: RunPlan
    start: Start
    best_score: float


def _take_part(job: _Job, stop: StopRequest) -> bool:
    """Train or serve, as this rank is to; returns whether the run came to its end. Collective."""
    grid, plan, config = job.grid, job.plan, job.config
    with watching(grid.world, grid.role) as roster:
        _introduce(roster, job)
        traced = traced_steps(config, plan, job.start.step)
        memory_run = MemoryRun(
            sizes=plan.sizes,
            num_batches=plan.num_batches,
            num_steps=plan.num_steps,
            traced=traced,
            snapshots=plan.sweep_ends,
            beginning=job.start,
            writer=RunCheckpoints(job.run, plan, grid.node, job.settings, config.keep_checkpoints),
            timeout_s=config.timeout_s,
        )
        if grid.is_daemon:
            return serve_memory(grid, memory_run, stop.is_made)
        memory = open_memory(grid, memory_run)
        training = _Training(job, memory, stop, traced)
        is_complete = training.run()
        training.close()
        memory.close(early=not is_complete)
        return is_complete


def _introduce(roster: list[str], job: _Job) -> None:
    """Log who does what, and what the run comes to."""
    plan = job.plan
    for line in roster:
        log.info("%s", line)
    log.info(
        "%d sweeps of %d steps on %s: every event is trained %d times",
        plan.num_sweeps,
        plan.num_batches,
        plan.shape,
        plan.epochs_trained,
    )
    if job.start.step:
        log.info("going on with step %d of %d", job.start.step, plan.num_steps)


class _Training:
    """A trainer rank's walk through the schedule, and what all trainers do together between sweeps."""

    def __init__(self, job: _Job, memory: MemoryService, stop: StopRequest, traced: range) -> None:
        self._config, self._run, self._grid = job.config, job.run, job.grid
        self._plan, self._start, self._memory, self._stop = job.plan, job.start, memory, stop
        self._is_root = job.grid.trainer == 0
        self._trainer = Trainer(job.store.stream, job.config, job.plan, job.grid, memory, job.graphs)
        compile_once(self._trainer, job.grid.node_trainer_comm, job.config.timeout_s)
        self._sweep_ends = SweepEnds(
            job.store.stream,
            job.config,
            job.run,
            job.plan,
            job.grid,
            memory,
            self._trainer,
            first_step=job.start.step,
            best_score=job.best_score,
        )
        self._timeline = Timeline(
            traced, job.run, job.plan, job.grid, self._trainer, memory, job.config.timeout_s
        )
        self._checkpointed_s = time.monotonic()

    def run(self) -> bool:
        """Train; validate after each sweep of replica 0 and keep the best weights; test those at the end.

        Returns False if it was asked to stop, which all trainers do after the same step, with a checkpoint.
        """
        start, plan, trainer = self._start, self._plan, self._trainer
        totals, held = start.load_trainer(self._grid.trainer)
        start.load_model(trainer.model, trainer.optimiser)
        if trainer.static is not None:
            trainer.static.load(start.load_static)
        trainer.go_on(start.step, held)
        started_s = time.perf_counter()
        if start.step - 1 in plan.sweep_ends:  # a sweep's last checkpoint is taken before its validation
            snapshot = self._sweep_ends.finish(start.step - 1, totals, started_s, start.grid)
            totals, started_s = np.zeros(2), time.perf_counter()
        num_trainers, train_end = plan.shape.num_trainers, plan.batching.split.train_end
        remaining = plan.epochs_trained * (plan.num_steps - start.step) / max(1, plan.num_steps)
        with progress(int(remaining * train_end), "training", shown=self._is_root) as bar:
            for step in range(start.step, plan.num_steps):
                with self._timeline.step(step):
                    loss, num_events = self._take_step(step)
                self._sweep_ends.note_step(step, trainer.gradients.mean_loss)
                totals += loss, num_events
                bar.advance(num_events * num_trainers, f"loss {totals[0] / max(1, totals[1]):.4f}")
                if self._is_checkpoint_due(step):
                    self._checkpoint(step, totals)
                if trainer.gradients.wants_stop:
                    self._memory.flush()
                    return False
                if step in plan.sweep_ends:
                    snapshot = self._sweep_ends.finish(step, totals, started_s, plan.shape.option)
                    totals, started_s = np.zeros(2), time.perf_counter()
        self._sweep_ends.test(snapshot)
        return True

    def close(self) -> None:
        """Give back what training took, at its end or an early one. Collective over all trainers."""
        self._trainer.close()

    def _take_step(self, step: int) -> tuple[float, int]:
        """One gradient step, in which all trainers agree on whether to stop and on what the clock asks for."""
        gradients, minutes = self._trainer.gradients, self._config.checkpoint_minutes
        gradients.wants_stop = self._stop.is_made() or self._memory.is_stop_asked
        elapsed_s = time.monotonic() - self._checkpointed_s
        gradients.wants_checkpoint = self._is_root and 0 < minutes * 60 < elapsed_s
        loss, num_events = self._trainer.step(step)
        if not gradients.is_finite:
            fail_together(self._grid.trainer_comm, self._run, gradients, self._plan.before.steps + step, loss)
        log.debug("step %d: %d events, loss %.4f", step, num_events, loss / max(1, num_events))
        return loss, num_events

    def _is_checkpoint_due(self, step: int) -> bool:
        """Whether all trainers keep a checkpoint after ``step``."""
        gradients, every = self._trainer.gradients, self._config.checkpoint_steps
        is_due_by_count = every > 0 and (self._plan.before.steps + step + 1) % every == 0
        is_due = gradients.wants_stop or gradients.wants_checkpoint or is_due_by_count
        return is_due or step in self._plan.sweep_ends

    def _checkpoint(self, step: int, totals: NDArray[np.float64]) -> None:
        """Have the state after ``step`` kept; it is on its way to the disk when this returns. Collective."""
        trainer = self._trainer
        with trainer.clock("checkpoint"):
            own = trainer_arrays(self._grid.trainer, totals, trainer.held(step))
            if self._is_root:
                own = {**own, **model_arrays(trainer.model, trainer.optimiser)}
                if trainer.static is not None:
                    own |= static_arrays(trainer.static.table)
            self._memory.checkpoint(step, own)
        self._checkpointed_s = time.monotonic()
