"""What is held out, and among which destinations each held-out event is ranked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.draws import Purpose
from disttgl_hpc.core.negatives import NegativeSampler, Strategy, evaluation_candidates
from disttgl_hpc.core.stream import EventStream
from disttgl_hpc.log import get_logger

log = get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """A held-out part of the stream: events [first, last), of which [first, scored_last) are ranked."""

    name: str
    first: int
    last: int
    scored_last: int


def held_out_parts(stream: EventStream, config: TrainConfig) -> tuple[Part, Part]:
    """Validation and test; ``config.evaluation_events`` limits how many events of each are ranked."""
    bounds = (stream.split.train_end, stream.split.validation_end, stream.num_events)
    limit = config.evaluation_events or stream.num_events
    validation, test = (
        Part(name, first, last, min(last, first + limit))
        for name, first, last in zip(("validation", "test"), bounds[:-1], bounds[1:], strict=True)
    )
    return validation, test


class Candidates:
    """The destinations each held-out event is ranked among: its own, then negatives fixed by their seed."""

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        self._stream, self._count = stream, config.evaluation_negatives
        nodes = evaluation_candidates(stream)
        if self._count >= len(nodes):
            log.warning(
                "%d negatives are drawn from %d nodes, with repeats: ranks among them compare with no other's",
                self._count,
                len(nodes),
            )
        self._negatives = NegativeSampler(
            stream,
            nodes,
            config.evaluation_seed,
            Purpose.EVALUATION_NEGATIVES,
            Strategy(config.evaluation_strategy),
        )

    def of(self, first: int, last: int) -> NDArray[np.int64]:
        """Candidates of events [first, last): (n, 1 + evaluation_negatives), the true destination first."""
        negatives = self._negatives.draw(first, last, self._count)
        return np.concatenate([self._stream.dst[first:last, None], negatives], axis=1, dtype=np.int64)
