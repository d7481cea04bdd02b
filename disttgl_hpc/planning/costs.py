"""Inputs of the scaling model: costs of a step, from a measurement of one trainer, and figures of a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError

Seconds = NDArray[np.float64]
_ALONE = "1x1x1"
_BEFORE_WRITING = ("sample", "read", "inputs", "forward", "write")


@dataclass(frozen=True)
class Costs:
    """Costs of the steps of a single trainer.

    events: of a mean step. batch_s: (S,) seconds of each measured step, in the stream's order. noise_s: (M,)
    deviations of steps from the cost of their batch; steps of different trainers deviate independently.
    before_write, backward: shares of a step before its write to the node memory, and of the backward pass; the
    rest, the optimiser, follows the sum of gradients. reply_s: wait for the reply of a memory daemon that serves
    no other trainer. cpu_s: CPU time of a step, all threads. daemon_s: time of the daemon for the trainer's read
    and write. model_bytes: gradients. stored_bytes: edge features that a step reads without a cache.
    train_events: events of a sweep.
    """

    events: float
    batch_s: Seconds
    noise_s: Seconds
    before_write: float
    backward: float
    reply_s: float
    cpu_s: float
    daemon_s: float
    model_bytes: int
    stored_bytes: float
    train_events: int

    @property
    def step_s(self) -> float:
        """Mean seconds of a step."""
        return float(self.batch_s.mean()) + self.reply_s

    @property
    def events_per_s(self) -> float:
        """Events/s of one trainer."""
        return self.events / self.step_s

    def faster(self, factor: float) -> Costs:
        """Costs of trainers that compute ``factor`` times faster, with the same daemon."""
        own = {name: getattr(self, name) / factor for name in ("batch_s", "noise_s", "cpu_s")}
        return replace(self, **own)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Costs:
        """Costs in a record of ``disttgl bench scaling``, from its grid 1×1×1.

        steps_together, if present: number of steps of which each recorded step is the mean. Raises ConfigError
        for a record without 1×1×1 or of another kind.
        """
        try:
            entry = of_one_trainer(record)
            rounds = entry["rounds"]
            steps_s = np.array([one["step_s"][0] for one in rounds])
            phases_s = {
                phase: sum(one["phases_s"][phase] for one in rounds) for phase in rounds[0]["phases_s"]
            }
            settings, total_s = record["settings"], sum(phases_s.values())
            events = rounds[0]["events_per_s"] * rounds[0]["elapsed_s"] / record["steps"]
            slots = (2 + settings["negatives_per_event"]) * (1 + settings["num_neighbors"])
            # Without a daemon the trainer copies the rows itself.
            daemon_s = 1e-6 * entry["daemon_cpu_us"] * events if entry["daemons"] else _copying_s(rounds)
            return cls(
                events=events,
                **_batch_and_noise(steps_s, record.get("steps_together", 1)),
                before_write=sum(phases_s[phase] for phase in _BEFORE_WRITING) / total_s,
                backward=phases_s["backward"] / total_s,
                reply_s=entry["memory_wait_s"][0] / record["steps"],
                cpu_s=1e-6 * entry["trainer_cpu_us"] * events,
                daemon_s=daemon_s,
                model_bytes=rounds[0]["model_bytes"],
                stored_bytes=events * slots * record["edge_bytes"],
                train_events=record["train_events"],
            )
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, StopIteration) as error:
            raise ConfigError(
                f"a calibration needs a measurement of one trainer with its single steps, not found: "
                f"{error or _ALONE}; make one with disttgl bench scaling EVENTS.h5 --grids 1x1x1 --json FILE"
            ) from error


def of_one_trainer(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of the grid 1×1×1 in a record of ``disttgl bench scaling``. Raises StopIteration without it."""
    return next(entry for entry in record["grids"] if entry["grid"] == _ALONE)


def _copying_s(rounds: list[dict[str, Any]]) -> float:
    """Seconds a step that a trainer without a daemon spends on reading and writing the node memory."""
    steps = sum(len(one["step_s"][0]) for one in rounds)
    return float(sum(one["phases_s"]["read"] + one["phases_s"]["write"] for one in rounds)) / steps


def _batch_and_noise(steps_s: Seconds, together: int) -> dict[str, Seconds]:
    """Costs of batches, and deviations of steps from them. steps_s: (rounds, S), the same steps in each round.

    Rounds are scaled to the median speed first, since a machine drifts for all trainers alike. A single round
    cannot distinguish an expensive batch from a disturbed step: all its variation counts as deviations. Recorded
    steps that are means of ``together`` steps deviate less than single steps by the root of that number.
    """
    means_s = steps_s.mean(axis=1, keepdims=True)
    steps_s = steps_s * (np.median(means_s) / means_s)
    num_rounds = len(steps_s)
    if num_rounds == 1:
        batch_s = np.full_like(steps_s[0], steps_s.mean())
        return {"batch_s": batch_s, "noise_s": (steps_s[0] - batch_s) * np.sqrt(together)}
    batch_s = steps_s.mean(axis=0)
    # Deviations from a mean over n rounds have (n − 1)/n of the variance.
    noise_s = (steps_s - batch_s) * np.sqrt(together * num_rounds / (num_rounds - 1))
    return {"batch_s": batch_s, "noise_s": noise_s.ravel()}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Figures of a cluster that a measurement of one trainer does not contain. Bandwidths in bytes/s.

    cores: of each node, for trainers and daemon. bandwidth, latency_s: of each node's network, one way.
    collective: algorithm of the gradient sum between nodes, a key of EXCHANGES. poll_s: added to every round of
    messages, since waiting ranks sleep between polls. meeting_s: of a barrier of the trainers of a node, for each
    doubling of their number. local_bandwidth: of a trainer's sum over shared memory. storage_bandwidth: of the file
    system, for all nodes together; 0 if the stream is in the page cache. crowding: additional CPU time of a step,
    as a share, when two or more threads share a core and its caches.
    """

    cores: int
    bandwidth: float = 12.5e9
    latency_s: float = 2e-6
    collective: str = "halving"
    poll_s: float = 1e-4
    meeting_s: float = 1e-4
    local_bandwidth: float = 4e9
    storage_bandwidth: float = 0.0
    crowding: float = 0.2

    def gradient_sum_s(self, num_bytes: int, nodes: int, trainers_per_node: int) -> float:
        """Seconds from the arrival of the last trainer until all have the sum; 0 for one trainer.

        Within a node each trainer sums its part of all trainers' gradients between two barriers. Between nodes the
        trainers of equal number sum that part, all through the network of their node.
        """
        seconds = 0.0
        if trainers_per_node > 1:
            barriers_s = 2 * self.meeting_s * np.log2(trainers_per_node)
            seconds += barriers_s + 2 * num_bytes / self.local_bandwidth
        if nodes > 1:
            rounds, volumes = EXCHANGES[self.collective](nodes)
            seconds += rounds * (self.latency_s + self.poll_s) + volumes * num_bytes / self.bandwidth
        return float(seconds)


def _ring(nodes: int) -> tuple[float, float]:
    return 2 * (nodes - 1), 2 * (nodes - 1) / nodes


def _halving(nodes: int) -> tuple[float, float]:
    return 2 * np.ceil(np.log2(nodes)), 2 * (nodes - 1) / nodes


def _tree(nodes: int) -> tuple[float, float]:
    return 2 * np.ceil(np.log2(nodes)), 2 * np.ceil(np.log2(nodes))


EXCHANGES = {"ring": _ring, "halving": _halving, "tree": _tree}
"""Algorithms of a sum over nodes: rounds of messages, and data that a node sends, in sizes of the gradients.

ring: neighbours pass parts around. halving: recursive halving and doubling. tree: reduce, then broadcast.
"""
