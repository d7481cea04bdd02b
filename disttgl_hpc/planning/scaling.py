"""The scaling model: simulates steps of many trainers from the costs of one, and forecasts grids of any size.

A trainer starts a step when its memory has been read and its batch loaded; it writes, runs its backward pass,
and waits for all others in the sum of gradients. The daemon of a node serves writes, and the reads behind them,
one after the other. Steps are synchronous, so each takes as long as its slowest trainer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from disttgl_hpc.errors import ConfigError, GridError
from disttgl_hpc.grid.schedule import GridShape, num_steps
from disttgl_hpc.planning.costs import Costs, Machine, Seconds, of_one_trainer

LOSSES = {
    "cores_s": "cores",
    "unequal_s": "unequal steps",
    "gradients_s": "gradient sum",
    "memory_s": "memory daemon",
    "storage_s": "storage",
}
"""Causes of lost time in a step, by field of a prediction. In all but the first, trainers are idle."""
_WORTH_NAMING = 0.05  # share of a step that all losses together must have to be a bottleneck
_LEAST_STEPS = 200
_PREFETCH = 2  # batches that are loaded ahead

GridOnNodes = tuple[GridShape, int]
"""A grid and its number of nodes."""


@dataclass(frozen=True)
class Prediction:
    """Predicted speed of a grid on some nodes; seconds are of a step, means over steps and trainers.

    step_s is the sum of compute_s, the step of a trainer alone, and the LOSSES: cores_s for sharing cores,
    unequal_s for waiting for the slowest trainer, gradients_s for the gradient sum, memory_s and storage_s for
    waiting until the memory or the features of the last trainer are read. batches: L of a sweep.
    """

    shape: GridShape
    nodes: int
    events_per_s: float
    step_s: float
    compute_s: float
    cores_s: float
    unequal_s: float
    gradients_s: float
    memory_s: float
    storage_s: float
    batches: int

    @property
    def idle_share(self) -> float:
        """Share of the trainers' time in which they wait."""
        return (self.unequal_s + self.gradients_s + self.memory_s + self.storage_s) / self.step_s

    @property
    def bottleneck(self) -> str:
        """The largest loss, or "computing" if all losses together are small."""
        losses = {name: getattr(self, field) for field, name in LOSSES.items()}
        if sum(losses.values()) < _WORTH_NAMING * self.step_s:
            return "computing"
        return max(losses, key=lambda name: losses[name])

    def run(self, epochs: int) -> tuple[int, float]:
        """Passes over the events, and seconds, of a run of ``epochs`` epochs in whole sweeps of j·k passes."""
        steps = num_steps(epochs, self.shape, self.batches)
        return steps // self.batches * self.shape.epoch * self.shape.memory, steps * self.step_s

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the properties."""
        own = asdict(self) | {"grid": self.shape.option, "trainers": self.shape.num_trainers}
        del own["shape"]
        return own | {"idle_share": self.idle_share, "bottleneck": self.bottleneck}


def predict(
    costs: Costs, machine: Machine, shape: GridShape, nodes: int = 1, *, steps: int = 0, seed: int = 0
) -> Prediction:
    """Simulate ``steps`` steps of a grid spread evenly over ``nodes``; by default all measured ones equally often.

    Raises GridError for a grid that cannot be spread.
    """
    if shape.memory % nodes:
        raise GridError(
            f"{shape} cannot be spread evenly over {nodes} nodes: a replica's trainers share a node, so k must be "
            f"a multiple of the nodes; try {nodes * -(-shape.memory // nodes)} replicas"
        )
    measured = len(costs.batch_s)
    steps = steps or -(-_LEAST_STEPS // measured) * measured
    model = Simulation(costs, machine, shape, nodes, np.random.Generator(np.random.Philox(seed)))
    spent = np.array([model.step(number) for number in range(steps)])
    compute, cores, unequal, gradients, memory, storage = spent.mean(axis=0).tolist()
    step_s = compute + cores + unequal + gradients + memory + storage
    return Prediction(
        shape=shape,
        nodes=nodes,
        events_per_s=shape.num_trainers * costs.events / step_s,
        step_s=step_s,
        compute_s=compute,
        cores_s=cores,
        unequal_s=unequal,
        gradients_s=gradients,
        memory_s=memory,
        storage_s=storage,
        batches=max(1, round(costs.train_events / (shape.minibatch * costs.events))),
    )


class Simulation:
    """Clocks of all trainers and daemons. Trainers are numbered by replica, lane and slice, node after node."""

    def __init__(
        self, costs: Costs, machine: Machine, shape: GridShape, nodes: int, random: np.random.Generator
    ) -> None:
        self._costs, self._machine, self._random = costs, machine, random
        self._shape, self._nodes = shape, nodes
        trainers = np.arange(shape.num_trainers)
        self._lane = trainers % shape.trainers_per_replica // shape.minibatch
        self._offset = trainers // shape.trainers_per_replica * len(costs.batch_s) // shape.memory
        self._per_node = shape.num_trainers // nodes
        self._exchange_s = machine.gradient_sum_s(costs.model_bytes, nodes, self._per_node)
        self._loading_s = (
            shape.num_trainers * costs.stored_bytes / machine.storage_bandwidth
            if machine.storage_bandwidth
            else 0.0
        )
        self.clock = np.zeros(shape.num_trainers)
        self.served = np.zeros(shape.memory)  # when the next read of each replica is served
        self._daemon_free = np.zeros((nodes, 1))
        self._begun = [0.0] * _PREFETCH  # start of the last steps, which request loads
        self._loaded = 0.0

    def step(self, number: int) -> tuple[float, float, float, float, float, float]:
        """One step of all trainers: seconds of compute, cores, unequal, gradients, memory and storage."""
        costs, shape = self._costs, self._shape
        own_s = self._own_s(number)
        spread_s = self.share_cores(own_s)
        reads = number % shape.epoch == self._lane
        served = np.repeat(self.served, shape.trainers_per_replica)
        ready = np.where(reads, np.maximum(self.clock, served) + costs.reply_s, self.clock)
        begin = np.maximum(ready, self._load())
        self.serve((begin + costs.before_write * spread_s)[reads])
        until_sum_s = (costs.before_write + costs.backward) * spread_s
        # Arrival of the last trainer without waits, with those for memory, and with those for storage as well. Each
        # cause is charged with the time that it adds to this arrival, for which all wait.
        alone, with_memory, with_both = ((start + until_sum_s).max() for start in (self.clock, ready, begin))
        lost = (
            own_s.mean(),
            (spread_s - own_s).mean(),
            alone - (self.clock + until_sum_s).mean(),
            self._exchange_s,
            with_memory - alone,
            with_both - with_memory,
        )
        self.clock = with_both + self._exchange_s + spread_s - until_sum_s
        return lost

    def _own_s(self, number: int) -> Seconds:
        """Seconds of each trainer's step without the others: the cost of its batch and a random deviation."""
        costs, epoch = self._costs, self._shape.epoch
        counter = number - (number - self._lane) % epoch
        batch_s = costs.batch_s[(counter + self._offset) % len(costs.batch_s)]
        own_s = batch_s + self._random.choice(costs.noise_s, len(batch_s))
        longer: Seconds = np.maximum(own_s, 0.1 * batch_s)
        return longer

    def share_cores(self, own_s: Seconds) -> Seconds:
        """Seconds of the same steps when active trainers and the daemon share the cores of a node equally.

        The shortest step ends first and leaves its share to the others.
        """
        costs, cores, per_node = self._costs, self._machine.cores, self._per_node
        threads = (costs.cpu_s + costs.daemon_s) / costs.step_s * np.arange(per_node, 0, -1)
        load = threads / cores
        slowdown = np.maximum(1, load) * (1 + self._machine.crowding * np.clip(load - 1, 0, 1))
        by_node = own_s.reshape(self._nodes, per_node)
        order = by_node.argsort(axis=1)
        parts = np.diff(np.take_along_axis(by_node, order, axis=1), axis=1, prepend=0.0)
        spread_s: Seconds = np.empty_like(by_node)
        np.put_along_axis(spread_s, order, (parts * slowdown).cumsum(axis=1), axis=1)
        return spread_s.ravel()

    def serve(self, written: Seconds) -> None:
        """Serve the writes of each daemon's replicas in order of arrival, each with the read behind it.

        The slices of a replica are served together, when the last of them has written.
        """
        service_s = self._shape.minibatch * self._costs.daemon_s
        arrivals = written.reshape(self._nodes, -1, self._shape.minibatch).max(axis=2)
        order = arrivals.argsort(axis=1)
        arrivals = np.maximum(np.take_along_axis(arrivals, order, axis=1), self._daemon_free)
        before_s = service_s * np.arange(arrivals.shape[1])
        done = np.maximum.accumulate(arrivals - before_s, axis=1) + before_s + service_s
        self._daemon_free = done[:, -1:]
        np.put_along_axis(self.served.reshape(self._nodes, -1), order, done, axis=1)

    def _load(self) -> float:
        """When storage has delivered the features of this step, which were requested some steps ahead."""
        self._loaded = max(self._loaded, self._begun.pop(0)) + self._loading_s
        self._begun.append(float(self.clock.mean()))
        return self._loaded if self._loading_s else 0.0


def grids_on_nodes(text: str) -> list[GridOnNodes]:
    """Parse grids and nodes like ``1x1x4,2x1x12@3``, by default one node; sorted by trainers.

    Raises ConfigError or GridError for another text.
    """
    found = []
    for part in text.split(","):
        grid, separator, nodes = part.partition("@")
        if separator and not (nodes.strip().isdecimal() and 0 < int(nodes) < 1 << 31):
            raise ConfigError(f"grids are written IxJxK@NODES,…: got {part!r}; try {grid}@2")
        found.append((GridShape.parse(grid), int(nodes) if separator else 1))
    return sorted(found, key=lambda one: one[0].num_trainers)


def doublings(
    trainers_per_node: int, most: int, *, minibatch: int = 1, epoch: int = 1
) -> list[tuple[GridShape, int]]:
    """Grids of 1, 2, 4, … replicas of i×j trainers, up to ``most`` trainers, and their nodes.

    Raises ConfigError if replicas do not fill nodes.
    """
    per_replica = minibatch * epoch
    if trainers_per_node % per_replica:
        raise ConfigError(
            f"a replica's {minibatch}×{epoch} trainers share a node, so trainers per node must be a multiple of "
            f"{per_replica}: got {trainers_per_node}; try {per_replica * -(-trainers_per_node // per_replica)}"
        )
    replicas_per_node, grids, memory = trainers_per_node // per_replica, [], 1
    while memory * per_replica <= most:
        nodes = max(1, -(-memory // replicas_per_node))
        grids.append((GridShape(minibatch, epoch, -(-memory // nodes) * nodes), nodes))
        memory *= 2
    return grids


def forecast(
    record: dict[str, Any],
    machine: Machine,
    grids: Sequence[GridOnNodes],
    *,
    epochs: int,
    faster: float = 1.0,
) -> dict[str, Any]:
    """Predictions of the grids in ``record``, whose 1×1×1 calibrates the model, and of ``grids``, as plain values.

    epochs: of the predicted run. faster: factor by which the trainers of ``grids`` compute faster than the measured
    one. Raises ConfigError for a record that cannot calibrate the model.
    """
    costs = Costs.of(record)
    alone_per_s = of_one_trainer(record)["events_per_s"]
    scaled = costs.faster(faster)
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
        "predicted": [_predicted(scaled, machine, shape, nodes, epochs) for shape, nodes in grids],
    }


def _compared(entry: dict[str, Any], alone_per_s: float, costs: Costs, machine: Machine) -> dict[str, Any]:
    """A measured grid beside its prediction on the same cores. alone_per_s: events/s of one trainer."""
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
    """A prediction, with passes and seconds of a run."""
    found = predict(costs, machine, shape, nodes)
    passes, run_s = found.run(epochs)
    return found.as_dict() | {
        "passes": passes,
        "run_s": run_s,
        "replicas_share_batches": shape.memory > found.batches,
    }
