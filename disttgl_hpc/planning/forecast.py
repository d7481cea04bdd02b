"""A whole forecast from a record of ``disttgl bench scaling``: its own grids for comparison, and larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.planning.costs import Costs, Machine, of_one_trainer
from disttgl_hpc.planning.scaling import predict

GridOnNodes = tuple[GridShape, int]


def forecast(
    record: dict[str, Any],
    machine: Machine,
    grids: Sequence[GridOnNodes],
    *,
    epochs: int,
    faster: float = 1.0,
) -> dict[str, Any]:
    """Predictions as plain values: of the grids in ``record``, of which only 1×1×1 calibrates, and of ``grids``.

    epochs: of the run whose passes and length are told. faster: how many times faster than in the record the
    trainers of ``grids`` compute. Raises ConfigError for a record that cannot calibrate.
    """
    costs = Costs.of(record)
    alone_per_s = of_one_trainer(record)["events_per_s"]
    imagined = costs.faster(faster)
    return {
        "stream": record["stream"],
        "epochs": epochs,
        "machine": asdict(machine),
        "calibration": {
            "processor": record["machine"]["processor"],
            "faster": faster,
            "events": costs.events,
            "step_s": costs.step_s,
            "deviation_s": float(costs.noise_s.std()),
            "daemon_s": costs.daemon_s,
            "model_bytes": costs.model_bytes,
            "assumed": record.get("assumed", []),
        },
        "measured": [_compared(entry, alone_per_s, costs, machine) for entry in record["grids"]],
        "predicted": [_predicted(imagined, machine, shape, nodes, epochs) for shape, nodes in grids],
    }


def _compared(entry: dict[str, Any], alone_per_s: float, costs: Costs, machine: Machine) -> dict[str, Any]:
    """A measured grid, compared with one trainer's events/s, and its prediction on the cores that it ran on."""
    own = replace(machine, cores=max(1, entry["cores"] // entry["nodes"]))
    found = predict(costs, own, GridShape.parse(entry["grid"]), entry["nodes"])
    kept = ("grid", "trainers", "events_per_s", "waiting_share", "oversubscribed")
    return {name: entry[name] for name in kept} | {
        "speed_up": entry["events_per_s"] / alone_per_s,
        "predicted_events_per_s": found.events_per_s,
        "predicted_speed_up": found.events_per_s / costs.events_per_s,
        "predicted_waiting_share": found.idle_share,
    }


def _predicted(costs: Costs, machine: Machine, shape: GridShape, nodes: int, epochs: int) -> dict[str, Any]:
    """A prediction with what it means for a run."""
    found = predict(costs, machine, shape, nodes)
    passes, run_s = found.run(epochs)
    return found.as_dict() | {
        "passes": passes,
        "run_s": run_s,
        "replicas_share_batches": shape.memory > found.batches,
    }
