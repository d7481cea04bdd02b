"""What a trainer costs on this machine with local batches of several sizes, or cost when it was measured before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from disttgl_hpc.benchmarks.bench_alone import ALONE
from disttgl_hpc.benchmarks.measuring import medians
from disttgl_hpc.benchmarks.scaling_bench import ScalingPlan, measure_scaling, stream_facts
from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.log import get_logger
from disttgl_hpc.planning.run_plan import batching_of

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
"""Settings that a step's time depends on, beside the local batch."""


def calibrate(
    stream: EventStream, config: TrainConfig, local_batches: Sequence[int], alone: Any
) -> list[dict[str, Any]]:
    """Train the same events with each local batch in this process; records as ``disttgl bench scaling`` makes them.

    Events are taken from several places of the stream. alone: an MPI communicator of this process only. Sizes take
    turns, so that a machine that drifts disturbs all of them alike; each turn takes about a second.
    """
    turns = [[_measure(stream, config, size, alone) for size in local_batches] for _ in range(_ROUNDS)]
    records = []
    for record, *others in zip(*turns, strict=True):
        rounds = [one["grids"][0]["rounds"][0] for one in (record, *others)]
        records.append(record | {"grids": [record["grids"][0] | medians(rounds) | {"rounds": rounds}]})
    return records


def _measure(stream: EventStream, config: TrainConfig, local_batch: int, alone: Any) -> dict[str, Any]:
    """One turn of one size."""
    own = replace(config, local_batch=local_batch, grid="")
    steps = -(-_MEASURED_EVENTS // (_PLACES * local_batch))
    warmup = -(-_WARMUP_EVENTS // (_PLACES * local_batch))
    places = _places(batching_of(stream, own, ALONE).num_batches, warmup + steps)
    plan = ScalingPlan(grids=(ALONE,), steps=steps, warmup=warmup, rounds=1, first_steps=places)
    log.info("measuring a trainer with local batches of %d", local_batch)
    return measure_scaling(stream, own, plan, alone) or {}


def _places(num_batches: int, steps: int) -> tuple[int, ...]:
    """Batches from which to measure so many steps: the middles of equal parts of a sweep, inside it if possible.

    Where a stream begins neighbourhoods are empty, and a step is cheaper than it ever is again.
    """
    latest = max(0, num_batches - steps)
    return tuple(min(latest, (2 * part + 1) * num_batches // (2 * _PLACES)) for part in range(_PLACES))


def cores_of(record: Mapping[str, Any]) -> int:
    """Cores of a node of the machine that was measured."""
    machine = record["machine"]
    return max(1, int(machine["cores"]) // int(machine["nodes"]))


def sizes_to_try(base: int, num_events: int) -> list[int]:
    """Local batches around ``base`` that a stream of ``num_events`` training events can fill."""
    return sorted({max(1, min(num_events, round(factor * base))) for factor in _FACTORS})


def check_calibration(
    record: Mapping[str, Any], stream: EventStream, config: TrainConfig, where: str
) -> None:
    """Raise ConfigError, naming what differs, unless ``record`` was measured on this stream with these settings.

    Settings that cost no time, and the local batch, may differ. where: the record's file, for the message.
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
            f"{where}: a measurement names its stream, settings and machine, not found: {error}; make it with "
            "disttgl plan EVENTS.h5 --json FILE"
        ) from error
    now = {"stream": stream.name} | stream_facts(stream) | _costs_of(config.as_dict())
    differing = [f"{name} was {then[name]!r}, is {now[name]!r}" for name in then if then[name] != now[name]]
    if differing:
        raise ConfigError(
            f"{where}: was measured on other events or with other settings: {'; '.join(differing)}; give the same "
            "ones, or leave --calibration out to measure now"
        )


def _costs_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that a step's time depends on; of a file of static memory its width counts, not its name."""
    found = {name: settings[name] for name in _COSTLY}
    if found["static"] not in {"", CO_TRAINED}:
        found["static"] = "a file"
    return found
