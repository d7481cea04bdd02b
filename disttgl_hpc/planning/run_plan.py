"""What a run's settings come to on a stream and a grid; every rank computes the same."""

from __future__ import annotations

from dataclasses import dataclass

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.schedule import Batching, GridShape, num_steps
from disttgl_hpc.memory.node_memory import MemorySizes


@dataclass(frozen=True)
class Before:
    """What a run had trained on other grids before it came to the present one: epochs, sweeps and steps.

    same_events: whether on the events of now; else on the first of them, and its last sweep is not validated here.
    """

    epochs: int = 0
    sweeps: int = 0
    steps: int = 0
    same_events: bool = True


@dataclass(frozen=True)
class RunPlan:
    """Lengths and sizes of a run: its batches, its steps, and the room its memory and requests take.

    Steps count from where its grid was laid; ``before`` is what was trained until then.
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
        """Plan of what ``before`` has left of ``config.epochs`` on ``shape``, or of just so many ``steps``."""
        batching = batching_of(stream, config, shape)
        sizes = MemorySizes.of(
            num_nodes=stream.num_nodes,
            dim_memory=config.dim_memory,
            local_batch=config.local_batch,
            epoch=shape.epoch,
            negatives_per_event=config.drawn_negatives,
            num_neighbors=config.num_neighbors,
            # An event of another slice may join one of this slice's nodes to one other.
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

        A grid is only laid where another one's sweep has ended; that is step −1.
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
        """Sweeps on this grid that come to at least as many passes as were trained before it."""
        return -(-self.before.epochs // self.epochs_per_sweep)


def batching_of(stream: EventStream, config: TrainConfig, shape: GridShape) -> Batching:
    """How a run cuts its stream: global batches of i·b events in training, evaluation batches behind them."""
    return Batching(stream.split, shape.minibatch * config.local_batch, config.evaluation_batch)
