"""Held-out parts of the stream, and the candidates among which each held-out event is ranked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.config import GIVEN, NEGATIVE_STRATEGIES, TrainConfig
from disttgl_hpc.draws import Purpose
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.events.tcsr import Ints
from disttgl_hpc.log import get_logger
from disttgl_hpc.sampling.negatives import NegativeSampler, Strategy, evaluation_candidates

log = get_logger(__name__)


@dataclass(frozen=True)
class Part:
    """A held-out part of the stream: events [first, last), of which [first, scored_last) are ranked."""

    name: str
    first: int
    last: int
    scored_last: int


def held_out_parts(stream: EventStream, config: TrainConfig) -> tuple[Part, Part]:
    """Validation and test; ``config.evaluation_events`` limits the number of ranked events of each."""
    bounds = (stream.split.train_end, stream.split.validation_end, stream.num_events)
    limit = config.evaluation_events or stream.num_events
    validation, test = (
        Part(name, first, last, min(last, first + limit))
        for name, first, last in zip(("validation", "test"), bounds[:-1], bounds[1:], strict=True)
    )
    return validation, test


class Candidates:
    """The destinations among which each held-out event is ranked: its own, then fixed negatives.

    Negatives are fixed by the seed or, with the strategy ``given``, those that came with the events. Raises
    ConfigError if none came with them.
    """

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        self._stream = stream
        is_given = config.evaluation_strategy == GIVEN
        self._source = _Given(stream) if is_given else _Drawn(stream, config)

    def of(self, first: int, last: int) -> NDArray[np.int64]:
        """Candidates of events [first, last) of one part: (n, 1 + negatives), the true destination first.

        If an event has fewer negatives than others, its destination is used as padding: see ``counted``.
        """
        own, negatives = self._stream.dst[first:last, None], self._source.negatives(first, last)
        return np.concatenate([own, np.where(negatives < 0, own, negatives)], axis=1, dtype=np.int64)

    def counted(self, first: int, last: int) -> NDArray[np.bool_] | None:
        """Mask (n, negatives) of the negatives of events [first, last) that exist; None: all exist."""
        return self._source.counted(first, last)

    def num_negatives(self, part: Part) -> int:
        """Largest number of negatives of an event of ``part``."""
        return self._source.width(part.first)


class _Drawn:
    """Negatives drawn by a strategy."""

    def __init__(self, stream: EventStream, config: TrainConfig) -> None:
        self._count = config.evaluation_negatives
        nodes = evaluation_candidates(stream)
        if self._count >= len(nodes):
            log.warning(
                "%d negatives are drawn with repeats from only %d nodes: metrics are not comparable with others",
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

    def negatives(self, first: int, last: int) -> NDArray[np.int64]:
        return self._negatives.draw(first, last, self._count)

    def counted(self, _first: int, _last: int) -> None:
        return None

    def width(self, _event: int) -> int:
        return self._count


class _Given:
    """Negatives that came with the events."""

    def __init__(self, stream: EventStream) -> None:
        bounds = stream.split.train_end, stream.split.validation_end
        self._parts = list(zip(bounds, _given_negatives(stream), strict=True))

    def negatives(self, first: int, last: int) -> Ints:
        begin, rows = self._part(first)
        return rows[first - begin : last - begin]

    def counted(self, first: int, last: int) -> NDArray[np.bool_] | None:
        there: NDArray[np.bool_] = self.negatives(first, last) >= 0
        return None if there.all() else there

    def width(self, event: int) -> int:
        return int((self._part(event)[1] >= 0).any(axis=0).sum())  # padding comes last

    def _part(self, event: int) -> tuple[int, Ints]:
        """The part that an event of validation or test belongs to: its first event, and its negatives."""
        return self._parts[event >= self._parts[1][0]]


def check_negatives(stream: EventStream, config: TrainConfig) -> None:
    """Raise ConfigError if the evaluation strategy is ``given`` and no negatives came with the events."""
    if config.evaluation_strategy == GIVEN:
        _given_negatives(stream)


def _given_negatives(stream: EventStream) -> tuple[Ints, Ints]:
    validation, test = stream.validation_negatives, stream.test_negatives
    if validation is None or test is None:
        raise ConfigError(
            "evaluation_strategy given needs negatives that came with the events, these events have none: prepare "
            f"them from a format with negatives (tgb, npz), or choose {', '.join(NEGATIVE_STRATEGIES)}"
        )
    return validation, test
