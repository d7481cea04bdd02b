"""Training: every rank either serves the node memory or walks the schedule, step by step."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.memory import MemoryService
from disttgl_hpc.core.metrics import LinkMetrics
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.errors import TrainingError
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.nn.processor import prepare_process
from disttgl_hpc.parallel.client import open_memory
from disttgl_hpc.parallel.daemon import serve_memory
from disttgl_hpc.parallel.grid import Grid, check_slices
from disttgl_hpc.parallel.waiting import sleeping_barrier, sleeping_sum
from disttgl_hpc.parallel.watch import watching
from disttgl_hpc.runs.batches import GraphSource, StoredGraphs
from disttgl_hpc.runs.candidates import held_out_parts
from disttgl_hpc.runs.checkpoints import save
from disttgl_hpc.runs.directory import RunDirectory, run_settings
from disttgl_hpc.runs.evaluate import Evaluator, Team
from disttgl_hpc.runs.plan import RunPlan, check_split
from disttgl_hpc.runs.results import final_results
from disttgl_hpc.runs.trainer import Trainer
from disttgl_hpc.runs.warmup import compile_once
from disttgl_hpc.store.events import EventStore

log = get_logger(__name__)


def train(
    store: EventStore, config: TrainConfig, run: RunDirectory, world: Any, batches: Path | None = None
) -> None:
    """Train on an event store with all ranks of ``world``, an MPI communicator (collective).

    ``batches``: a batch store to read the graphs from; without it they are sampled, and are the same.
    Fills the run directory: config.json, metrics.jsonl, checkpoints. Raises ConfigError or GridError when run
    directory, split or ranks do not fit, and StoreError for a batch store of other settings, before anything is
    allocated; TrainingError when the loss is no longer a number.
    """
    prepare_process(config.threads)
    run.check_free()
    check_split(store.stream)
    grid = Grid.create(world, GridShape.parse(config.grid) if config.grid else None)
    check_slices(grid.shape, store.stream.split.train_end)
    plan = RunPlan.of(store.stream, config, grid.shape)
    graphs = StoredGraphs.open(batches, store, config, grid.shape.minibatch) if batches else None
    order = (plan.sizes, plan.num_batches, plan.num_steps)
    with watching(grid.world, grid.role) as roster:
        _introduce(roster, plan)
        if grid.is_daemon:
            serve_memory(grid, *order, snapshots=plan.sweep_ends, timeout_s=config.timeout_s)
        else:
            memory = open_memory(grid, *order, snapshots=plan.sweep_ends, timeout_s=config.timeout_s)
            _Training(store, config, run, plan, grid, memory, graphs).run()
            memory.close()
    grid.free()


def _introduce(roster: list[str], plan: RunPlan) -> None:
    """Log who does what, and what the run comes to."""
    for line in roster:
        log.info("%s", line)
    log.info(
        "%d sweeps of %d steps on %s: every event is trained %d times",
        len(plan.sweep_ends),
        plan.num_batches,
        plan.shape,
        plan.epochs_trained,
    )


class _Training:
    """A trainer rank's walk through the schedule, and what all trainers do together between sweeps."""

    def __init__(  # noqa: PLR0917
        self,
        store: EventStore,
        config: TrainConfig,
        run: RunDirectory,
        plan: RunPlan,
        grid: Grid,
        memory: MemoryService,
        graphs: GraphSource | None,
    ) -> None:
        self._config, self._run, self._plan, self._grid, self._memory = config, run, plan, grid, memory
        self._settings = run_settings(store, config, grid.shape)
        self._is_root = grid.trainer == 0
        self._trainer = Trainer(store.stream, config, plan, grid, memory, graphs)
        compile_once(self._trainer, grid.node_trainer_comm, config.timeout_s)
        self._evaluator = Evaluator(
            store.stream, config, plan.batching, self._trainer.inputs, _team(grid, memory)
        )
        self._validation, _ = held_out_parts(store.stream, config)
        self._best_mrr = -math.inf

    def run(self) -> None:
        """Train; validate after each sweep of replica 0 and keep the best weights; test those at the end."""
        if self._is_root:
            self._run.create(self._settings)
        num_trainers, train_end = self._plan.shape.num_trainers, self._plan.batching.split.train_end
        totals, started_s = np.zeros(2), time.perf_counter()
        with progress(self._plan.epochs_trained * train_end, "training", shown=self._is_root) as bar:
            for step in range(self._plan.num_steps):
                loss, num_events = self._trainer.step(step)
                _check_loss(loss, step)
                log.debug("step %d: %d events, loss %.4f", step, num_events, loss / max(1, num_events))
                totals += loss, num_events
                bar.advance(num_events * num_trainers, f"loss {totals[0] / max(1, totals[1]):.4f}")
                if step in self._plan.sweep_ends:
                    snapshot = self._finish_sweep(step, totals, time.perf_counter() - started_s)
                    totals, started_s = np.zeros(2), time.perf_counter()
        self._test(snapshot)
        self._trainer.close()

    def _finish_sweep(self, step: int, totals: NDArray[np.float64], train_s: float) -> NDArray[np.float32]:
        """Keep the state after a sweep, validate on a copy of its memory, and record both. Collective.

        Returns the copy (N, 2·dim_memory), which validation has moved on.
        """
        sleeping_sum(self._grid.trainer_comm, totals, self._config.timeout_s, "the sweep's losses")
        started_s = time.perf_counter()
        snapshot = self._memory.snapshot(step)
        if self._is_root:
            # Before validation, which moves the copy on; the other trainers write it only after meeting us.
            self._save(step, snapshot)
        metrics = self._evaluator.evaluate(self._trainer.model, snapshot, self._validation)
        if metrics.mrr > self._best_mrr:
            self._best_mrr = metrics.mrr
            if self._is_root:
                self._run.keep_best()
        if self._is_root:
            timing = {"train_s": train_s, "evaluate_s": time.perf_counter() - started_s}
            self._record(step, totals, metrics, timing)
        return snapshot

    def _save(self, step: int, snapshot: NDArray[np.float32]) -> None:
        """Write the last checkpoint."""
        attributes = {"step": step + 1, "sweep": self._sweep(step), **self._settings}
        trainer = self._trainer
        save(self._run.last_checkpoint, trainer.model, trainer.optimiser, snapshot, attributes)

    def _record(
        self, step: int, totals: NDArray[np.float64], metrics: LinkMetrics, timing: dict[str, Any]
    ) -> None:
        """Record a finished sweep and tell it."""
        loss, num_events = totals
        timing |= {"events_per_s": num_events / timing["train_s"], "phases_s": self._trainer.clock.take()}
        record = {
            "sweep": self._sweep(step),
            "step": step + 1,
            "loss": loss / num_events,
            "validation": metrics.as_dict(),
            "timing": timing,
        }
        self._run.record("sweep", record)
        text = "sweep %d: loss %.4f, validation MRR %.4f, %.0f events/s"
        log.info(text, record["sweep"], record["loss"], metrics.mrr, timing["events_per_s"])

    def _sweep(self, step: int) -> int:
        """Number of the sweep that ends with ``step``, from 1."""
        return (step + 1) // self._plan.num_batches

    def _test(self, snapshot: NDArray[np.float32]) -> None:
        """Evaluate the best weights with the memory they left, and record the result. Collective."""
        sleeping_barrier(self._grid.trainer_comm, self._config.timeout_s, "the best checkpoint to be written")
        started_s = time.perf_counter()
        results = final_results(self._run, self._evaluator, self._trainer.model, snapshot)
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


def _check_loss(loss: float, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss must be a number, it is {loss} in step {step}: lower --lr, or look for extreme features"
        )
