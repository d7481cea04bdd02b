"""A trained run put to use: its best weights, and its node memory as of any moment of a stream.

The memory at a moment has seen all events strictly before it, in the batches of the run: those of training, then
evaluation batches; the last of them ends at the moment, full or not. Before the end of training it is carried there
from zero by the best weights; from there on it is carried on from what the best sweep has left, as in evaluation.
So it depends on the run and on events before the moment, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.evaluation.memory_walk import MemoryWalk, write
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.batching import Batching
from disttgl_hpc.inference.node_ids import NodeIds
from disttgl_hpc.log import progress
from disttgl_hpc.model.input_builder import InputBuilder
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.sampling.mail import batch_first_of

_SHOWN_BATCHES = 20  # as many batches are walked without a progress bar


@dataclass(frozen=True)
class Moment:
    """A time, and the number of events before it; ``time`` has the type of the stream's times."""

    position: int
    time: int | float


@dataclass(frozen=True)
class _Start:
    """A memory to begin with: ``load`` gives the one before event ``position``, which begins a batch."""

    position: int
    load: Callable[[], NDArray[np.float32]]


class Trained:
    """A model whose weights stay as they are, and a node memory that is carried along a stream.

    stream: the events, with the split that the run was trained with. ids: the user's, of its nodes. origin: of
    which weights and events all this is.
    """

    def __init__(
        self,
        model: Tgn,
        stream: EventStream,
        ids: NodeIds,
        *,
        config: TrainConfig,
        batching: Batching,
        inputs: InputBuilder,
        origin: Mapping[str, str],
    ) -> None:
        self.model, self.stream, self.ids, self.config, self.inputs = model, stream, ids, config, inputs
        self.walk = MemoryWalk(stream, config, batching, inputs)
        self.origin, self._batching = origin, batching
        self._starts: list[_Start] = []
        self._state, self._position = np.empty((0, 0), np.float32), -1
        self.start_at(0, lambda: np.zeros((stream.num_nodes, 2 * config.dim_memory), np.float32))

    def start_at(self, position: int, load: Callable[[], NDArray[np.float32]]) -> None:
        """From event ``position`` on, which begins a batch, begin with the memory that ``load`` gives there."""
        self._starts.append(_Start(position, load))

    def moment(self, at: float | None = None) -> Moment:
        """The moment ``at``, which events of that time do not precede; None: right after the last event.

        Raises ConfigError for a fraction where all times are whole numbers.
        """
        times = self.stream.time
        if at is None:
            return Moment(self.stream.num_events, times[-1].item())
        if times.dtype == np.int64:
            if at != int(at):
                raise ConfigError(f"times of this stream are whole numbers, found {at}: round it")
            at = int(at)
        return Moment(int(np.searchsorted(times, times.dtype.type(at), "left")), times.dtype.type(at).item())

    @contextmanager
    def memory(self, position: int) -> Iterator[NDArray[np.float32]]:
        """The memory (N, 2·dim_memory) that has seen events [0, position), while the context lasts; read only.

        Within it no gradients are taken. Moments that ascend cost one walk along the stream.
        """
        with torch.no_grad():
            first = self.carry_to(position)
            updates = self.walk.updates(self.model, self._state, first, position) if first < position else []
            before = [(nodes, self._state[nodes]) for nodes, _ in updates]
            write(self._state, updates)
            try:
                yield self._state
            finally:
                write(self._state, before)

    @torch.no_grad()
    def carry_to(self, position: int) -> int:
        """Carry the memory to the batch that event ``position`` falls into, were there one; → its first event."""
        target = batch_first_of(position, self._batching.cuts)
        start = max((one for one in self._starts if one.position <= target), key=lambda one: one.position)
        if not start.position <= self._position <= target:
            self._state, self._position = start.load(), start.position
        is_long = target - self._position > _SHOWN_BATCHES * self.config.evaluation_batch
        with progress(target - self._position, "memory", shown=is_long) as bar:
            while self._position < target:
                last = self._batching.batch_end(self._position)
                write(self._state, self.walk.updates(self.model, self._state, self._position, last))
                bar.advance(last - self._position)
                self._position = last
        return target

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    @property
    def rows(self) -> NDArray[np.float32]:
        """The memory (N, 2·dim_memory) where :meth:`carry_to` has carried it."""
        return self._state
