"""What a run of one trainer tells of the costs of its steps, in the shape of a measurement."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.benchmarks.bench_alone import ALONE
from disttgl_hpc.benchmarks.scaling_bench import stream_facts
from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.training.run_directory import RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.run_static import with_static_memory

Record = dict[str, Any]
_COMPUTING = ("inputs", "forward", "write", "backward", "reduce", "optimiser")
_PHASES = ("sample", "read", *_COMPUTING)
_MEASURE = "disttgl bench scaling EVENTS.h5 --grids 1x1x1 --json FILE"


def run_costs(path: Path) -> Record:
    """A record as ``disttgl bench scaling`` makes them, of the whole sweeps that one trainer took in a run.

    A run keeps phases sweep by sweep, and the time at up to 40 points of each. ``assumed`` says what stands in for
    the rest. Raises ConfigError without such a sweep, StoreError where files of the run or its events are damaged.
    """
    run = RunDirectory(path)
    settings = run.read_config()
    config, events = saved_config(settings), Path(settings["events"])
    if not events.exists():
        raise ConfigError(
            f"{events}: a run's events must be there, for what their features cost, and are not: put them back, or "
            f"measure anew with {_MEASURE}"
        )
    store = with_static_memory(open_events(events, settings["checksum"]), config)
    stream = with_task(store, config).stream
    num_batches = batching_of(stream, config, ALONE).num_batches
    sweeps = [record for record in run.records() if _is_whole(record, num_batches)]
    if not sweeps:
        raise ConfigError(
            f"{path}: a run calibrates with whole sweeps of a single trainer, which it has not: train one with "
            f"--grid 1x1x1, or measure with {_MEASURE}"
        )
    with_daemon = bool(sweeps[-1]["timing"]["daemons"])  # jobs of one run may have differed
    sweeps = [sweep for sweep in sweeps if bool(sweep["timing"]["daemons"]) == with_daemon]
    model_bytes = sum(parameter.nbytes for parameter in build_model(stream, config).parameters())
    rounds = [_round(sweep, num_batches) | {"model_bytes": model_bytes} for sweep in sweeps]
    together = int(_steps_of_points(sweeps[0], num_batches).max())
    return {
        "stream": stream.name,
        **stream_facts(stream),
        "steps": num_batches,
        "steps_together": together,
        "machine": {"processor": "a processor that the run did not record"},
        "settings": config.as_dict(),
        "grids": [_entry(sweeps, rounds, config)],
        "assumed": _assumed(len(sweeps), together),
    }


def _is_whole(record: Mapping[str, Any], num_batches: int) -> bool:
    """Whether this is a sweep that one trainer took from its beginning to its end in one job."""
    timing = record.get("timing", {})
    if record["record"] != "sweep" or len(timing.get("trainers", {}).get("rank", ())) != 1:
        return False
    trained = timing["events_per_s"] * timing["train_s"]
    return bool(abs(trained - record["events"]) < 1 and _steps_of_points(record, num_batches).min() > 0)


def _steps_of_points(sweep: Mapping[str, Any], num_batches: int) -> NDArray[np.int64]:
    """Steps between the points of a sweep's course."""
    found: NDArray[np.int64] = np.diff(sweep["timing"]["course"]["step"], prepend=sweep["step"] - num_batches)
    return found


def _round(sweep: Mapping[str, Any], num_batches: int) -> Record:
    """A sweep as a round of a measurement: every step takes the mean of those between two points.

    Checkpoints are left out and waits for the daemon told apart, both as if they were spread evenly.
    """
    timing, steps = sweep["timing"], _steps_of_points(sweep, num_batches)
    phases_s = {name: column[0] for name, column in timing["trainers"].items() if name in _PHASES}
    waited_s = phases_s["read"] if timing["daemons"] else 0.0
    aside_s = (waited_s + timing["trainers"]["checkpoint"][0]) / num_batches
    step_s = np.repeat(np.diff(timing["course"]["elapsed_s"], prepend=0.0) / steps, steps) - aside_s
    elapsed_s = float(step_s.sum()) + waited_s
    return {
        "events_per_s": sweep["events"] / elapsed_s,
        "elapsed_s": elapsed_s,
        "step_s": [step_s.tolist()],
        "phases_s": phases_s,
    }


def _entry(sweeps: list[Record], rounds: list[Record], config: TrainConfig) -> Record:
    """Figures of the trainer over all its sweeps; with a daemon it does not read the node memory itself."""
    timings, events = [sweep["timing"] for sweep in sweeps], sweeps[0]["events"]
    with_daemon = bool(timings[0]["daemons"])
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
    """What the model takes for granted where a run has recorded less than a measurement."""
    found = ["phases and the loading thread took their whole time on cores, CPU time not being recorded"]
    if together > 1:
        found.append(
            f"steps, recorded {together} at a time, deviate independently, by √{together} times as much"
        )
    if num_sweeps == 1:
        found.append(
            "batches cost all the same and steps deviate, as a single sweep cannot tell the two apart"
        )
    return found
