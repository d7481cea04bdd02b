"""Calibrations of the planner and the scaling model: records of one trainer, in the format of ``bench scaling``.

They are measured now with local batches of several sizes, measured earlier, or derived from the records of a run.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.benchmarks.measuring import medians
from disttgl_hpc.benchmarks.scaling_bench import ScalingPlan, measure_scaling, stream_facts
from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import Communicator
from disttgl_hpc.grid.schedule import ALONE
from disttgl_hpc.log import get_logger
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.store.node_rows import with_static_memory
from disttgl_hpc.training.run_directory import RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import with_task

log = get_logger(__name__)

_FACTORS = (0.25, 0.5, 1, 2, 4)
_WARMUP_EVENTS, _MEASURED_EVENTS = 4_800, 9_600
_ROUNDS, _PLACES = 3, 4
_COSTLY = (
    "dim_memory",
    "dim_time",
    "dim_embedding",
    "num_heads",
    "num_neighbors",
    "comb",
    "node_memory",
    "static",
    "time_encoding",
    "pair_features",
    "task",
    "negatives_per_event",
    "prefetch",
    "precision",
    "threads",
    "device",
)
"""Settings on which the time of a step depends, besides the local batch."""
_COMPUTING = ("inputs", "forward", "write", "backward", "reduce", "optimiser")
_PHASES = ("sample", "read", *_COMPUTING)
_MEASURE = "disttgl bench scaling EVENTS.h5 --grids 1x1x1 --json FILE"

Record = dict[str, Any]


def calibrate(
    stream: EventStream, config: TrainConfig, local_batches: Sequence[int], comm: Communicator
) -> list[Record]:
    """Train the same events with each local batch in this process; records as of ``disttgl bench scaling``.

    Events are from several places of the stream. comm: an MPI communicator of this process only. Sizes take turns,
    so that a drifting machine disturbs all of them alike; each turn takes about a second.
    """
    turns = [[_measure(stream, config, size, comm) for size in local_batches] for _ in range(_ROUNDS)]
    records = []
    for record, *others in zip(*turns, strict=True):
        rounds = [one["grids"][0]["rounds"][0] for one in (record, *others)]
        records.append(record | {"grids": [record["grids"][0] | medians(rounds) | {"rounds": rounds}]})
    return records


def _measure(stream: EventStream, config: TrainConfig, local_batch: int, comm: Communicator) -> Record:
    """One turn of one size."""
    own = replace(config, local_batch=local_batch, grid="")
    steps = -(-_MEASURED_EVENTS // (_PLACES * local_batch))
    warmup = -(-_WARMUP_EVENTS // (_PLACES * local_batch))
    places = first_batches(batching_of(stream, own, ALONE).num_batches, warmup + steps)
    plan = ScalingPlan(grids=(ALONE,), steps=steps, warmup=warmup, rounds=1, first_steps=places)
    log.info("measuring one trainer with local batches of %d", local_batch)
    return measure_scaling(stream, own, plan, comm) or {}


def first_batches(num_batches: int, steps: int) -> tuple[int, ...]:
    """First batches of measurements of ``steps`` steps: the middles of equal parts of a sweep, if they fit.

    At the start of a stream neighbourhoods are empty, and steps are cheaper than later.
    """
    latest = max(0, num_batches - steps)
    return tuple(min(latest, (2 * part + 1) * num_batches // (2 * _PLACES)) for part in range(_PLACES))


def cores_of(record: Mapping[str, Any]) -> int:
    """Cores of a node of the measured machine."""
    machine = record["machine"]
    return max(1, int(machine["cores"]) // int(machine["nodes"]))


def sizes_to_try(base: int, num_events: int) -> list[int]:
    """Local batches around ``base`` that a stream of ``num_events`` training events can fill."""
    return sorted({max(1, min(num_events, round(factor * base))) for factor in _FACTORS})


def check_calibration(
    record: Mapping[str, Any], stream: EventStream, config: TrainConfig, where: str
) -> None:
    """Raise ConfigError, with all differences, unless ``record`` is of this stream and these settings.

    The local batch, and settings without effect on the time of a step, may differ. where: file of the record.
    """
    try:
        saved = TrainConfig().as_dict() | record["settings"]
        known = {"stream": record["stream"]} | {
            name: record[name] for name in stream_facts(stream) if name in record
        }
        then = known | _costs_of(saved)
        cores_of(record)
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise ConfigError(
            f"{where}: a measurement names its stream, settings and machine, not found: {error}; make one with "
            "disttgl plan EVENTS.h5 --json FILE"
        ) from error
    now = {"stream": stream.name} | stream_facts(stream) | _costs_of(config.as_dict())
    differing = [f"{name} was {then[name]!r}, is {now[name]!r}" for name in then if then[name] != now[name]]
    if differing:
        raise ConfigError(
            f"{where}: measured on other events or with other settings: {'; '.join(differing)}; give the "
            "same ones, or leave out --calibration to measure now"
        )


def _costs_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings on which the time of a step depends, without the name of a file of static memory."""
    found = {name: settings[name] for name in _COSTLY}
    if found["static"] not in {"", CO_TRAINED}:
        found["static"] = "a file"
    return found


def run_costs(path: Path) -> Record:
    """A record as of ``disttgl bench scaling``, from the whole sweeps that one trainer took in a run.

    A run records phases by sweep, and the time at up to 40 points of each. ``assumed`` lists assumptions for the
    rest. Raises ConfigError without such a sweep, StoreError if files of the run or its events are damaged.
    """
    run = RunDirectory(path)
    settings = run.read_config()
    config, events = saved_config(settings), Path(settings["events"])
    if not os.path.exists(events):
        raise ConfigError(
            f"{events}: no such file, but the cost of a step depends on the run's events: put them back, or "
            f"measure again with {_MEASURE}"
        )
    store = with_static_memory(open_events(events, settings["checksum"]), config)
    stream = with_task(store, config).stream
    num_batches = batching_of(stream, config, ALONE).num_batches
    sweeps = [record for record in run.measured_records() if _is_whole(record, num_batches)]
    if not sweeps:
        raise ConfigError(
            f"{path}: a calibration needs whole sweeps of one trainer, found none: train with --grid 1x1x1, or "
            f"measure with {_MEASURE}"
        )
    with_daemon = bool(sweeps[-1]["timing"].get("daemons"))  # jobs of one run may differ in this
    sweeps = [sweep for sweep in sweeps if bool(sweep["timing"].get("daemons")) == with_daemon]
    model_bytes = sum(parameter.nbytes for parameter in build_model(stream, config).parameters())
    try:
        rounds = [_round(sweep, num_batches) | {"model_bytes": model_bytes} for sweep in sweeps]
        entry = _entry(sweeps, rounds, config)
    except (LookupError, TypeError, ArithmeticError) as error:
        raise StoreError(
            f"{run.metrics_file}: the timing of a sweep lacks or has odd fields ({error}): restore it, or measure "
            f"with {_MEASURE}"
        ) from error
    together = int(_steps_of_points(sweeps[0], num_batches).max())
    return {
        "stream": stream.name,
        **stream_facts(stream),
        "steps": num_batches,
        "steps_together": together,
        "machine": {"processor": "a processor that the run did not record"},
        "settings": config.as_dict(),
        "grids": [entry],
        "assumed": _assumed(len(sweeps), together),
    }


def _is_whole(record: Mapping[str, Any], num_batches: int) -> bool:
    """Whether a record is of a sweep that one trainer took as a whole in one job, with its phases and points."""
    timing = record.get("timing", {})
    ranks, course = timing.get("trainers") or {}, timing.get("course") or {}
    if record["record"] != "sweep" or len(ranks.get("rank", ())) != 1 or not course.get("elapsed_s"):
        return False
    trained = timing.get("events_per_s", 0.0) * timing.get("train_s", 0.0)
    is_complete = course["step"][-1] == record.get("step") and _steps_of_points(record, num_batches).min() > 0
    return bool(is_complete and abs(trained - record.get("events", 0)) < 1)


def _steps_of_points(sweep: Mapping[str, Any], num_batches: int) -> NDArray[np.int64]:
    """Steps between the recorded points of a sweep."""
    found: NDArray[np.int64] = np.diff(sweep["timing"]["course"]["step"], prepend=sweep["step"] - num_batches)
    return found


def _round(sweep: Mapping[str, Any], num_batches: int) -> Record:
    """A sweep as a round of a measurement: every step takes the mean time between two recorded points.

    Checkpoints and waits for the daemon are subtracted as if they were spread evenly over the steps.
    """
    timing, steps = sweep["timing"], _steps_of_points(sweep, num_batches)
    phases_s = {name: column[0] for name, column in timing["trainers"].items() if name in _PHASES}
    waited_s = phases_s["read"] if timing.get("daemons") else 0.0
    excluded_s = (waited_s + timing["trainers"]["checkpoint"][0]) / num_batches
    step_s = np.repeat(np.diff(timing["course"]["elapsed_s"], prepend=0.0) / steps, steps) - excluded_s
    elapsed_s = float(step_s.sum()) + waited_s
    return {
        "events_per_s": sweep["events"] / elapsed_s,
        "elapsed_s": elapsed_s,
        "step_s": [step_s.tolist()],
        "phases_s": phases_s,
    }


def _entry(sweeps: list[Record], rounds: list[Record], config: TrainConfig) -> Record:
    """Figures of the trainer over all its sweeps; with a daemon, its reads are waits."""
    timings, events = [sweep["timing"] for sweep in sweeps], sweeps[0]["events"]
    with_daemon = bool(timings[0].get("daemons"))
    busy = _COMPUTING if with_daemon else (*_COMPUTING, "read")

    def mean_s(role: str, names: tuple[str, ...]) -> float:
        return fmean(sum(timing[role][name][0] for name in names) for timing in timings)

    cpu_s = config.threads * mean_s("trainers", busy) + mean_s("trainers", ("load",))
    daemon_s = mean_s("daemons", ("read", "write")) if with_daemon else 0.0
    waited_s = mean_s("trainers", ("read",)) if with_daemon else 0.0
    return {
        "grid": ALONE.option,
        "trainers": 1,
        "nodes": 1,
        "cores": config.threads + 1,
        "daemons": int(with_daemon),
        "oversubscribed": False,
        "events_per_s": fmean(one["events_per_s"] for one in rounds),
        "waiting_share": waited_s / fmean(one["elapsed_s"] for one in rounds),
        "memory_wait_s": [waited_s],
        "trainer_cpu_us": 1e6 * cpu_s / events,
        "daemon_cpu_us": 1e6 * daemon_s / events,
        "rounds": rounds,
    }


def _assumed(num_sweeps: int, together: int) -> list[str]:
    """Assumptions of the model, since a run records less than a measurement."""
    found = ["phases and the loading thread used the CPU all the time, as CPU time is not recorded"]
    if together > 1:
        found.append(
            f"steps, recorded {together} at a time, deviate independently, by √{together} times as much"
        )
    if num_sweeps == 1:
        found.append(
            "all batches cost the same and only steps deviate, as a single sweep cannot separate the two"
        )
    return found
