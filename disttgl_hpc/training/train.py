"""Training: every rank either serves the node memory or trains, step by step along the schedule."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import PeerError, TrainingError
from disttgl_hpc.events.stream import model_unit
from disttgl_hpc.grid.collectives import Communicator, allgather, decide_together, together
from disttgl_hpc.grid.job import StopRequest, roster, stop_signals
from disttgl_hpc.grid.process_grid import Grid, check_slices
from disttgl_hpc.grid.schedule import Assignment, GridShape, batch_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.memory.client import open_memory
from disttgl_hpc.memory.daemon import serve_memory
from disttgl_hpc.memory.node_memory import MemoryRun, MemoryService
from disttgl_hpc.model.input_builder import device_of, num_parameters
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.planning.grid_choice import grid_shape
from disttgl_hpc.planning.run_plan import RunPlan
from disttgl_hpc.sampling.local_batch import StoredGraphs
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.training.checkpoints import RunCheckpoints, model_arrays, static_arrays, trainer_arrays
from disttgl_hpc.training.resume import Job, Start, check_step, find_start
from disttgl_hpc.training.run_directory import RunDirectory, run_settings
from disttgl_hpc.training.run_events import check_batches_fit, largest_feature, with_inputs
from disttgl_hpc.training.sweep_ends import SweepEnds
from disttgl_hpc.training.timeline import Timeline, traced_steps
from disttgl_hpc.training.trainer import Trainer, compile_once

log = get_logger(__name__)

_SEARCHED_EVENTS, _SUSPICIOUS_FEATURE = 1 << 14, 1e4  # named where a loss is NaN


def train(
    store: EventStore,
    config: TrainConfig,
    run: RunDirectory,
    world: Communicator,
    batches: Path | None = None,
    *,
    resume: bool = False,
) -> bool:
    """Train on an event store with all ranks of ``world``, an MPI communicator (collective).

    ``batches``: a batch store to read graphs from instead of sampling them, with identical results. Writes
    the run directory: config.json, metrics.jsonl, checkpoints; ``resume`` continues the run in it. Returns
    whether the run is complete: False after a checkpoint if a signal asked to stop. Raises ConfigError or
    GridError if run directory, split or ranks do not fit, and StoreError for a batch store of other settings,
    before anything is allocated; StoreError for a checkpoint that cannot be written or read; TrainingError
    for a NaN or infinite loss.
    """
    prepare_process(config.threads)
    if not resume:
        run.check_free()
    decide_together(world, store.check_contents, config.timeout_s, "check the events")  # all below reads them
    if batches is not None:
        check_batches_fit(config)
    store = with_inputs(store, config)
    shape = grid_shape(store.stream, config, world, num_parameters(store.stream, config))
    grid = Grid.create(world, shape, timeout_s=config.timeout_s)
    check_slices(grid.shape, store.stream.split.train_end)
    _check_devices(grid, config)
    # Grid and time unit may have been left open; from here on, the settings are those of config.json.
    unit = model_unit(store.stream, config.time_unit)
    config = replace(config, grid=grid.shape.option, time_unit=unit)
    settings = run_settings(store, config, batches)
    graphs = StoredGraphs.open(batches, store, config, grid.shape.minibatch) if batches else None
    with stop_signals() as stop, ExitStack() as lock:
        decide_together(
            grid.world, lambda: lock.enter_context(run.locked()), config.timeout_s, "lock the run directory"
        )
        start, plan = decide_together(
            grid.world,
            lambda: _begin(run, settings, store, config, resume=resume),
            config.timeout_s,
            "find the start of the run",
        )
        job = Job(
            store=store,
            graphs=graphs,
            config=config,
            settings=settings,
            run=run,
            grid=grid,
            plan=plan,
            start=start,
        )
        is_complete = start.leaves_nothing_of(plan) or _train_or_serve(job, stop)
    grid.free()
    return is_complete


def _begin(
    run: RunDirectory, settings: dict[str, Any], store: EventStore, config: TrainConfig, *, resume: bool
) -> tuple[Start, RunPlan]:
    """Find the start of a run, plan its steps and, unless none are left, prepare its directory for them.

    The first rank does this for all.
    """
    start = find_start(run, config, store) if resume else Start(grid=config.grid)
    plan = RunPlan.of(store.stream, config, GridShape.parse(config.grid), before=start.before)
    check_step(start, plan, run)
    if start.leaves_nothing_of(plan):
        log.info("%s is complete: nothing to do unless --epochs is increased", run.path)
        return start, plan
    run.begin(settings, plan.before.steps + start.step, plan.before)
    return start, plan


def _check_devices(grid: Grid, config: TrainConfig) -> None:
    """Raise ConfigError or PeerError on all ranks unless every trainer has its device. Collective."""
    with together(grid.world, config.timeout_s):
        if not grid.is_daemon:
            device_of(config, grid.local_trainer)


def _train_or_serve(job: Job, stop: StopRequest) -> bool:
    """Train or serve the node memory, by the rank's role; returns whether the run is complete. Collective."""
    grid, plan, config = job.grid, job.plan, job.config
    _log_roster(roster(grid.world, grid.role, config.timeout_s), job)
    memory_run = MemoryRun(
        sizes=plan.sizes,
        num_batches=plan.num_batches,
        num_steps=plan.num_steps,
        traced=traced_steps(config, plan, job.start.step),
        snapshots=plan.sweep_ends,
        beginning=job.start,
        writer=RunCheckpoints(job.run, plan, grid.node, job.settings, config.keep_checkpoints),
        timeout_s=config.timeout_s,
    )
    if grid.is_daemon:
        return serve_memory(grid, memory_run, stop.is_made)
    memory = open_memory(grid, memory_run)
    try:
        training = _Training(job, memory, memory_run.traced, stop)
        is_complete = training.run()
        training.close()
    except Exception:
        memory.abandon()
        raise
    memory.close(early=not is_complete)
    return is_complete


def _log_roster(lines: list[str], job: Job) -> None:
    """Log the role of each rank and the extent of the run."""
    for line in lines:
        log.info("%s", line)
    plan = job.plan
    log.info(
        "%d sweeps of %d steps (global batches) on %s: every event is trained %d times",
        plan.num_sweeps,
        plan.num_batches,
        plan.shape,
        plan.epochs_trained,
    )
    if job.start.step:
        log.info("continuing with step %d of %d", job.start.step, plan.num_steps)


class _Training:
    """The steps of one trainer rank, and what all trainers do together between sweeps."""

    def __init__(self, job: Job, memory: MemoryService, traced: range, stop: StopRequest) -> None:
        self._job, self._memory, self._stop = job, memory, stop
        self._is_root = job.grid.trainer == 0
        self._trainer = Trainer(job.store.stream, job.config, job.plan, job.grid, memory, job.graphs)
        compile_once(self._trainer, job.grid.node_trainer_comm, job.config.timeout_s)
        self._sweep_ends = SweepEnds(job, memory, self._trainer)
        self._timeline = Timeline(job, memory, self._trainer, traced)
        self._checkpointed_s = time.monotonic()

    def run(self) -> bool:
        """Train; validate after each sweep of replica 0 and keep the best weights; test them at the end.

        Returns False if asked to stop, which all trainers do after the same step, with a checkpoint.
        """
        start, plan, trainer = self._job.start, self._job.plan, self._trainer
        totals, started_s = self._restore(), time.perf_counter()
        if start.step - 1 in plan.sweep_ends:  # a sweep's last checkpoint is taken before its validation
            snapshot = self._sweep_ends.finish(start.step - 1, totals, started_s, start.grid)
            totals, started_s = np.zeros(2), time.perf_counter()
        with progress(self._remaining_events(), "training", shown=self._is_root) as bar:
            for step in range(start.step, plan.num_steps):
                with self._timeline.step(step):
                    loss, num_events = self._take_step(step)
                self._sweep_ends.note_step(step, trainer.gradients.mean_loss)
                totals += loss, num_events
                bar.advance(num_events * plan.shape.num_trainers, f"loss {totals[0] / max(1, totals[1]):.4f}")
                if self._is_checkpoint_due(step):
                    self._checkpoint(step, totals)
                if trainer.gradients.is_stop_agreed:
                    self._memory.flush()
                    return False
                if step in plan.sweep_ends:
                    snapshot = self._sweep_ends.finish(step, totals, started_s, plan.shape.option)
                    totals, started_s = np.zeros(2), time.perf_counter()
        self._sweep_ends.test(snapshot)  # a run ends with a sweep, so there is a snapshot
        return True

    def close(self) -> None:
        """Release the trainer's resources. Collective over all trainers."""
        self._trainer.close()

    def _restore(self) -> NDArray[np.float64]:
        """Load the trainer's state from the start; returns its (summed loss, events) of the current sweep."""
        start, trainer = self._job.start, self._trainer
        totals, held = start.load_trainer(self._job.grid.trainer)
        start.load_model(trainer.model, trainer.optimiser)
        if trainer.static is not None:
            trainer.static.load(start.load_static)
        trainer.go_on(start.step, held)
        return totals

    def _remaining_events(self) -> int:
        """Events that all trainers still have to train, for the progress bar."""
        plan, start = self._job.plan, self._job.start
        passes = plan.epochs_trained * (plan.num_steps - start.step) / max(1, plan.num_steps)
        return int(passes * plan.batching.split.train_end)

    def _take_step(self, step: int) -> tuple[float, int]:
        """One gradient step, in which all trainers also agree whether to stop and whether to checkpoint."""
        gradients, minutes = self._trainer.gradients, self._job.config.checkpoint_minutes
        gradients.asks_stop = self._stop.is_made() or self._memory.is_stop_asked
        elapsed_s = time.monotonic() - self._checkpointed_s
        gradients.asks_checkpoint = self._is_root and 0 < minutes * 60 < elapsed_s
        loss, num_events = self._trainer.step(step)
        if not gradients.is_finite:
            _fail_non_finite(self._job, self._trainer, step, loss)
        log.debug("step %d: %d events, loss %.4f", step, num_events, loss / max(1, num_events))
        return loss, num_events

    def _is_checkpoint_due(self, step: int) -> bool:
        """Whether all trainers take a checkpoint after ``step``."""
        gradients, plan, every = self._trainer.gradients, self._job.plan, self._job.config.checkpoint_steps
        is_due_by_count = every > 0 and (plan.before.steps + step + 1) % every == 0
        is_due = gradients.is_stop_agreed or gradients.is_checkpoint_agreed or is_due_by_count
        return is_due or step in plan.sweep_ends

    def _checkpoint(self, step: int, totals: NDArray[np.float64]) -> None:
        """Take a checkpoint of the state after ``step``; it is written while training continues. Collective."""
        trainer = self._trainer
        with trainer.clock("checkpoint"):
            own = trainer_arrays(self._job.grid.trainer, totals, trainer.held(step))
            if self._is_root:
                own = {**own, **model_arrays(trainer.model, trainer.optimiser)}
                if trainer.static is not None:
                    own |= static_arrays(trainer.static.table)
            self._memory.checkpoint(step, own)
        self._checkpointed_s = time.monotonic()


def _remedy_for_features(job: Job, work: Assignment | None) -> str:
    """Name the largest edge feature up to a batch if it is too large to train well; "" if none is."""
    stream, batching = job.store.stream, job.plan.batching
    if work is None or stream.edge_features is None:
        return ""
    last = batch_bounds(work.batch, batching.global_batch, batching.split.train_end)[1]
    column, largest = largest_feature(
        stream.edge_features[max(0, last - _SEARCHED_EVENTS) : last], stream.edge_scale
    )
    if largest < _SUSPICIOUS_FEATURE:
        return ""
    return f"scale the edge features: column {column} reaches {largest:.3g} in these or the events before"


def _fail_non_finite(job: Job, trainer: Trainer, step: int, loss: float) -> None:
    """End training after a step whose loss or gradients were NaN or infinite. Collective over all trainers.

    Raises TrainingError on the first trainer whose own loss or gradients were non-finite, PeerError on the
    others.
    """
    comm, own, remedy = job.grid.trainer_comm, "", ""
    if not trainer.gradients.is_own_finite:
        own = "gradients are not finite" if math.isfinite(loss) else f"loss is {loss}"
        remedy = _remedy_for_features(job, trainer.work(step))
    findings = allgather(comm, (own, remedy), job.config.timeout_s, "the trainers' findings")
    guilty = next((number for number, (finding, _) in enumerate(findings) if finding), 0)
    finding, remedy = findings[guilty]
    folders = job.run.whole_checkpoints
    intact = (
        f"the last checkpoint, {folders[-1].name}, is intact" if folders else "there is no checkpoint yet"
    )
    text = (
        f"{finding or 'the sum of all gradients is not finite'} in step {job.plan.before.steps + step}: "
        f"lower --lr and train again, or {remedy or 'look for extreme features'}; {intact}"
    )
    if comm.rank == guilty:
        raise TrainingError(text)
    raise PeerError(f"trainer {guilty}: {text}")
