"""What a trainer's step costs, read from a measurement of one trainer; and the machine it is imagined on."""

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
    """Costs of the steps of one trainer that has nobody to wait for.

    events: of a step, on average. batch_s: (S,) seconds of each measured step, in the stream's order. noise_s: (M,)
    by how much a step deviates from what its batch costs; steps of different trainers deviate independently.
    before_write, backward: shares of a step before its write to the node memory and of the backward pass; what is
    left, the optimiser, comes after the sum of gradients. reply_s: wait for the memory daemon's reply, who has
    nobody else to serve. cpu_s: CPU time of a step, all threads. daemon_s: time that the daemon needs for the
    trainer's read and write. model_bytes: gradients. stored_bytes: edge features that a
    step reads where nothing is cached. train_events: of the stream, each of which a sweep trains once.
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
        """Speed of one trainer."""
        return self.events / self.step_s

    def faster(self, factor: float) -> Costs:
        """Costs of trainers that compute so many times faster, with the same daemon."""
        own = {name: getattr(self, name) / factor for name in ("batch_s", "noise_s", "cpu_s")}
        return replace(self, **own)

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Costs:
        """Costs in a record of ``disttgl bench scaling``, of which only the grid 1×1×1 is looked at.

        steps_together, if it is there: of how many steps each of the single ones is the mean.
        Raises ConfigError for a record without it or of another kind.
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
                **_taken_apart(steps_s, record.get("steps_together", 1)),
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
                f"a model is calibrated with a measurement of one trainer that has its single steps, not found: "
                f"{error or _ALONE}; make one with disttgl bench scaling EVENTS.h5 --grids 1x1x1 --json FILE"
            ) from error


def of_one_trainer(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a record of ``disttgl bench scaling`` has of the grid 1×1×1. Raises StopIteration without it."""
    return next(entry for entry in record["grids"] if entry["grid"] == _ALONE)


def _copying_s(rounds: list[dict[str, Any]]) -> float:
    """Seconds a step in which a trainer without a daemon reads and writes the node memory."""
    steps = sum(len(one["step_s"][0]) for one in rounds)
    return float(sum(one["phases_s"]["read"] + one["phases_s"]["write"] for one in rounds)) / steps


def _taken_apart(steps_s: Seconds, together: int) -> dict[str, Seconds]:
    """What batches cost, and how steps deviate from it. steps_s: (rounds, S), the same steps in each round.

    Rounds are brought to one speed first: a machine that drifts does so for all trainers. A single round cannot
    tell a dear batch from a disturbed step, and all its unevenness counts as deviations. Means over some steps
    ``together`` deviate less than the steps do, by the root of their number.
    """
    means_s = steps_s.mean(axis=1, keepdims=True)
    steps_s = steps_s * (np.median(means_s) / means_s)
    num_rounds = len(steps_s)
    if num_rounds == 1:
        batch_s = np.full_like(steps_s[0], steps_s.mean())
        return {"batch_s": batch_s, "noise_s": (steps_s[0] - batch_s) * np.sqrt(together)}
    batch_s = steps_s.mean(axis=0)
    deviations_s = (steps_s - batch_s) * np.sqrt(
        together * num_rounds / (num_rounds - 1)
    )  # the mean has a share in each
    return {"batch_s": batch_s, "noise_s": deviations_s.ravel()}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Figures of a cluster that a run of one trainer does not show. Bandwidths in bytes/s.

    cores: of each node, for trainers and daemon. bandwidth, latency_s: of each node's network, one way.
    collective: how gradients are summed between nodes, a key of EXCHANGES. poll_s: added to every round of
    messages, since ranks that wait sleep between looks. meeting_s: for the trainers of a node to meet once, for
    each doubling of their number. local_bandwidth: at which a trainer adds up what lies in shared memory.
    storage_bandwidth: of the file system, for all nodes together; 0: the stream is in the page cache. crowding: how
    much more CPU time a step takes where two or more threads share a core, as caches do not grow with them.
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
        """Seconds from the last trainer's arrival until all have the sum; nothing to do for one trainer alone.

        Within a node each trainer adds up its share of all trainers' gradients, between two meetings; between nodes
        each share is summed by the trainers of one number, all of them through their node's network.
        """
        seconds = 0.0
        if trainers_per_node > 1:
            meetings_s = 2 * self.meeting_s * np.log2(trainers_per_node)
            seconds += meetings_s + 2 * num_bytes / self.local_bandwidth
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
"""Ways to sum over nodes: rounds of messages, and what a node sends in units of the gradients' size.

ring: neighbours pass parts around. halving: recursive halving and doubling. tree: reduce, then broadcast.
"""
