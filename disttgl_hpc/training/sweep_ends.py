"""The end of a sweep and of a run: validate, keep the best weights, record, and test them beside the heuristics."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import CO_TRAINED
from disttgl_hpc.errors import StoreError
from disttgl_hpc.evaluation.candidates import Candidates, Part, held_out_parts
from disttgl_hpc.evaluation.evaluator import Evaluator, Team
from disttgl_hpc.evaluation.heuristics import best_half_life, class_baselines, heuristic_scores
from disttgl_hpc.evaluation.metrics import NewNodes, PartMetrics, ranked
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import Communicator, decide_together, gather, join, sum_in_place
from disttgl_hpc.grid.job import roster
from disttgl_hpc.grid.process_grid import Grid
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.log import get_logger
from disttgl_hpc.memory.node_memory import MemoryService
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.products import prepare_process
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.checkpoint_files import checkpoint_folder, part_path, read_manifest, verify_parts
from disttgl_hpc.store.event_store import EventStore
from disttgl_hpc.store.node_rows import with_static_memory
from disttgl_hpc.training.checkpoints import check_attributes, load_memory, load_static, load_weights
from disttgl_hpc.training.resume import Job
from disttgl_hpc.training.run_directory import Best, RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import check_same_static_memory, static_settings, with_task
from disttgl_hpc.training.timeline import RankFigures
from disttgl_hpc.training.trainer import Trainer

log = get_logger(__name__)

_SCORES, _COUNTS = "the other ranks' scores", "the other ranks' counts of classes"


def final_results(
    run: RunDirectory, best: Best, evaluator: Evaluator, model: Tgn, state: NDArray[np.float32]
) -> dict[str, Any]:
    """Validation and test with a run's best weights, which ``model`` takes on, and the memory they left.

    Collective over the evaluator's team. ``state`` (N, 2·dim_memory) is where the memory is loaded; it and a
    co-trained static memory, loaded where the evaluator's inputs have theirs, are shared by the team's
    members of a node. Same results on all members.
    """
    team, stream, config = evaluator.team, evaluator.stream, evaluator.config
    part = part_path(checkpoint_folder(run.checkpoints, best.step), 0)
    load_weights(part, model)
    team.fence()
    if team.node_index == 0:
        load_memory(part, 0, state)
        if evaluator.inputs.co_trained is not None:
            load_static(part, {"rows": evaluator.inputs.co_trained})
    team.fence()
    results: dict[str, Any] = {"best_sweep": best.sweep}
    held_out = held_out_parts(stream, config)
    for one in held_out:
        results[one.name] = evaluator.evaluate(model, state, one).as_dict()
    besides: dict[str, Any] = team.decide(lambda: _besides(evaluator, *held_out), "evaluate the heuristics")
    return results | besides


def _besides(evaluator: Evaluator, validation: Part, test: Part) -> dict[str, Any]:
    """What stands beside the model's results: heuristics and baselines on test, and what was ranked among."""
    stream, config = evaluator.stream, evaluator.config
    besides: dict[str, Any] = {"task": config.task}
    if config.predicts_links:
        besides["heuristics"] = _heuristics(stream, evaluator.candidates, validation, test)
        besides["evaluation_negatives"] = evaluator.candidates.num_negatives(test)
        besides["evaluation_strategy"] = config.evaluation_strategy
    if stream.targets is not None:
        found = class_baselines(stream, stream.targets, test.first, test.scored_last)
        besides["baselines"] = {name: metrics.as_dict() for name, metrics in found.items()}
    return besides


def _heuristics(
    stream: EventStream, candidates: Candidates, validation: Part, test: Part
) -> dict[str, dict[str, Any]]:
    """Metrics of the heuristics on test, on the model's candidates; validation sets PopTrack's half-life."""
    ranges = [(part.first, part.scored_last) for part in (validation, test)]
    tuning, asked = (candidates.of(*bounds) for bounds in ranges)
    in_tuning, in_asked = (candidates.counted(*bounds) for bounds in ranges)
    half_life = best_half_life(stream, *ranges[0], tuning, counted=in_tuning)
    new = NewNodes.of(stream, *ranges[1])
    scores = heuristic_scores(stream, *ranges[1], asked, half_life)
    return {name: ranked(of_one, new, in_asked).as_dict() for name, of_one in scores}


def best_grid(run: RunDirectory, best: Best) -> str:
    """The grid that the best sweep was trained on, whose batches decide which mail is pending after it."""
    manifest = read_manifest(checkpoint_folder(run.checkpoints, best.step))
    check_attributes(manifest)
    return str(manifest.attributes["grid"])


def check_files(run: RunDirectory, store: EventStore) -> None:
    """Raise StoreError unless the events, and the best checkpoint's parts, are whole."""
    store.check_contents()
    verify_parts(read_manifest(run.best_checkpoint.parent))


def evaluate_run(
    run: RunDirectory, events: Path | None, world: Communicator, static: Path | None = None
) -> dict[str, Any]:
    """Repeat the final evaluation of a run from its files, shared among all ranks of ``world`` (collective).

    events, static: the event store and the file of static memory, if they are no longer where the run found
    them. Raises StoreError if a file is missing or is not the one the run was made with.
    """
    settings = run.read_config()
    config = saved_config(settings)
    prepare_process(config.threads)
    if static is not None:
        config = replace(config, static=str(static))
    check_same_static_memory(settings, static_settings(config), run.path, "evaluate RUN --static FILE")
    store = open_events(Path(events or settings["events"]), settings["checksum"])
    decide_together(world, lambda: check_files(run, store), config.timeout_s, "check the run and its events")
    store = with_static_memory(with_task(store, config), config)
    stream = store.stream
    device = device_of(config, world.rank)
    team = Team(
        index=world.rank,
        size=world.size,
        gather=partial(join, world, timeout_s=config.timeout_s, what=_SCORES),
        collect=partial(gather, world, timeout_s=config.timeout_s, what=_COUNTS),
        decide=lambda decide, what: decide_together(world, decide, config.timeout_s, what),
    )
    best = run.read_best()
    batching = batching_of(stream, config, GridShape.parse(best_grid(run, best)))
    co_trained = (
        np.empty((stream.num_nodes, config.dim_memory), np.float32) if config.static == CO_TRAINED else None
    )
    evaluator = Evaluator(stream, config, batching, InputBuilder(stream, device, co_trained), team)
    state = np.empty((stream.num_nodes, 2 * config.dim_memory), np.float32)
    for line in roster(world, "scorer", config.timeout_s):
        log.info("%s", line)
    return final_results(run, best, evaluator, build_model(stream, config).to(device), state)


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
        self._best = job.start.best
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
        sum_in_place(self._grid.trainer_comm, totals, self._job.config.timeout_s, "the sweep's losses")
        started_s = time.perf_counter()
        snapshot = self._memory.snapshot(step)
        metrics = self._evaluator(grid).evaluate(self._trainer.model, snapshot, self._validation)
        if self._best is None or metrics.score > self._best.score:
            self._best = Best(self._total(step), self._sweep(step), float(metrics.score))
            self._memory.flush()
        timing: dict[str, Any] = {"train_s": train_s, "evaluate_s": time.perf_counter() - started_s}
        timing |= {"course": self._curve.take()} | self._figures.gather(train_s, timing["evaluate_s"])
        start = self._job.start
        if self._is_root and not (start.is_recorded and step == start.step - 1):
            self._record(step, totals, metrics, timing)
        return snapshot

    def _record(
        self, step: int, totals: NDArray[np.float64], metrics: PartMetrics, timing: dict[str, Any]
    ) -> None:
        """Record and log a completed sweep."""
        loss, num_events = totals
        # A resumed sweep was trained by this job in part, or not at all.
        share = min(1.0, (step + 1 - self._job.start.step) / self._plan.num_batches)
        speed = ""
        if share:
            timing = {"events_per_s": share * num_events / timing["train_s"], **timing}
            speed = f", {timing['events_per_s']:.0f} events/s"
        record = {
            "sweep": self._sweep(step),
            "step": self._total(step),
            "events": int(num_events),
            "loss": loss / num_events,
            "validation": metrics.as_dict(),
            "best": vars(self._best),
            "timing": timing,
        }
        self._run.record("sweep", record)
        text = "sweep %d: loss %.4f, validation %s%s"
        log.info(text, record["sweep"], record["loss"], metrics.summary, speed)

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
        if self._best is None:
            raise StoreError(f"{self._run.path}: no sweep has been validated: begin another run")
        self._memory.flush()
        started_s = time.perf_counter()
        evaluator = self._evaluator(best_grid(self._run, self._best))
        results = final_results(self._run, self._best, evaluator, self._trainer.model, snapshot)
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
        gather=partial(join, grid.trainer_comm, timeout_s=grid.timeout_s, what=_SCORES),
        collect=partial(gather, grid.trainer_comm, timeout_s=grid.timeout_s, what=_COUNTS),
        decide=lambda decide, what: decide_together(grid.trainer_comm, decide, grid.timeout_s, what),
    )
