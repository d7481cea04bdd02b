"""What a run's settings come to on a stream and a grid; every rank computes the same."""

from __future__ import annotations

from dataclasses import dataclass

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.batching import Batching
from disttgl_hpc.core.memory import MemorySizes
from disttgl_hpc.core.schedule import GridShape, num_steps
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.errors import ConfigError


@dataclass(frozen=True)
class RunPlan:
    """Lengths and sizes of a run: its batches, its steps, and the room its memory and requests take."""

    shape: GridShape
    batching: Batching
    num_steps: int
    sizes: MemorySizes

    @classmethod
    def of(
        cls, stream: EventStream, config: TrainConfig, shape: GridShape, steps: int | None = None
    ) -> RunPlan:
        """Plan of ``config.epochs`` on ``shape``, or of just so many ``steps``."""
        batching = batching_of(stream, config, shape)
        sizes = MemorySizes.of(
            num_nodes=stream.num_nodes,
            dim_memory=config.dim_memory,
            local_batch=config.local_batch,
            epoch=shape.epoch,
            negatives_per_event=config.negatives_per_event,
            num_neighbors=config.num_neighbors,
        )
        whole = num_steps(config.epochs, shape, batching.num_batches)
        return cls(shape, batching, whole if steps is None else steps, sizes)

    @property
    def num_batches(self) -> int:
        """L: global batches of a training sweep."""
        return self.batching.num_batches

    @property
    def sweep_ends(self) -> range:
        """Steps after which replica 0 has finished a sweep, and its memory is evaluated."""
        return range(self.num_batches - 1, self.num_steps, self.num_batches)

    @property
    def epochs_trained(self) -> int:
        """Passes over each event in all: j·k in every sweep."""
        return len(self.sweep_ends) * self.shape.epoch * self.shape.memory


def batching_of(stream: EventStream, config: TrainConfig, shape: GridShape) -> Batching:
    """How a run cuts its stream: global batches of i·b events in training, evaluation batches behind them."""
    return Batching(stream.split, shape.minibatch * config.local_batch, config.evaluation_batch)


def check_split(stream: EventStream) -> None:
    """Raise ConfigError unless training, validation and test each hold an event."""
    split = stream.split
    sizes = (
        split.train_end,
        split.validation_end - split.train_end,
        stream.num_events - split.validation_end,
    )
    if min(sizes) == 0:
        raise ConfigError(
            f"training, validation and test each need an event, they have {sizes[0]:,}, {sizes[1]:,} and "
            f"{sizes[2]:,} of {stream.num_events:,}: prepare the events again with another --split"
        )
