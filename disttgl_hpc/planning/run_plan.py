"""The lengths and sizes of a run, from its settings, stream and grid; the same on every rank."""

from __future__ import annotations

from dataclasses import dataclass

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import Batching, GridShape, num_steps
from disttgl_hpc.memory.node_memory import MemorySizes


@dataclass(frozen=True)
class Before:
    """Epochs, sweeps and steps that a run has trained on earlier grids.

    same_events: on the present events. If not, on the first of them, and the last of those sweeps is not validated.
    """

    epochs: int = 0
    sweeps: int = 0
    steps: int = 0
    same_events: bool = True


@dataclass(frozen=True)
class RunPlan:
    """Batches, steps, and sizes of memory and requests of a run on one grid.

    Steps count from the first one on this grid; ``before`` is the training on earlier grids.
    """

    shape: GridShape
    batching: Batching
    num_steps: int
    sizes: MemorySizes
    before: Before = Before()

    @classmethod
    def of(
        cls,
        stream: EventStream,
        config: TrainConfig,
        shape: GridShape,
        steps: int | None = None,
        before: Before = Before(),
    ) -> RunPlan:
        """Plan of ``steps`` steps on ``shape``, or of the rest of ``config.epochs`` after ``before``."""
        batching = batching_of(stream, config, shape)
        sizes = MemorySizes.of(
            num_nodes=stream.num_nodes,
            dim_memory=config.dim_memory,
            local_batch=config.local_batch,
            epoch=shape.epoch,
            negatives_per_event=config.drawn_negatives,
            num_neighbors=config.num_neighbors,
            # An event of another slice may connect a node of this slice to one other node.
            other_partners=batching.global_batch - config.local_batch if config.comb == "mean" else 0,
        )
        whole = num_steps(max(0, config.epochs - before.epochs), shape, batching.num_batches)
        return cls(shape, batching, whole if steps is None else steps, sizes, before)

    @property
    def num_batches(self) -> int:
        """L: global batches of a training sweep."""
        return self.batching.num_batches

    @property
    def sweep_ends(self) -> range:
        """Steps after which replica 0 has finished a sweep, and its memory is evaluated.

        Step −1 is the end of the last sweep on an earlier grid; grids change only there.
        """
        first = -1 if self.before.steps and self.before.same_events else self.num_batches - 1
        return range(first, self.num_steps, self.num_batches)

    @property
    def num_sweeps(self) -> int:
        """Sweeps of a replica on this grid."""
        return self.num_steps // self.num_batches

    @property
    def epochs_per_sweep(self) -> int:
        """Passes over each event in a sweep of all replicas, j·k."""
        return self.shape.epoch * self.shape.memory

    @property
    def epochs_trained(self) -> int:
        """Passes over each event on this grid."""
        return self.num_sweeps * self.epochs_per_sweep

    @property
    def sweeps_before(self) -> int:
        """Sweeps on this grid with at least as many passes as were trained before it."""
        return -(-self.before.epochs // self.epochs_per_sweep)


def batching_of(stream: EventStream, config: TrainConfig, shape: GridShape) -> Batching:
    """The batches of a run: global batches of i·b events in training, then evaluation batches."""
    return Batching(stream.split, shape.minibatch * config.local_batch, config.evaluation_batch)
