"""Metrics of a held-out part: links, inductive links (with nodes not seen in training), and classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disttgl_hpc.evaluation.classes import ClassMetrics
from disttgl_hpc.evaluation.ranking import LinkMetrics, link_metrics
from disttgl_hpc.events.stream import EventStream


@dataclass(frozen=True)
class NewNodes:
    """Whether the source and the destination of held-out events have no training event: (n,) each."""

    is_new_source: NDArray[np.bool_]
    is_new_destination: NDArray[np.bool_]

    @classmethod
    def of(cls, stream: EventStream, first: int, last: int) -> NewNodes:
        """New nodes of events [first, last)."""
        is_seen = np.zeros(stream.num_nodes, np.bool_)
        for ends in (stream.src, stream.dst):
            is_seen[ends[: stream.split.train_end]] = True
        return cls(~is_seen[stream.src[first:last]], ~is_seen[stream.dst[first:last]])

    @property
    def any(self) -> NDArray[np.bool_]:
        """Events with at least one new end: the inductive ones."""
        return self.is_new_source | self.is_new_destination


@dataclass(frozen=True)
class InductiveMetrics:
    """Link prediction over events with at least one new node, among the same candidates as all events."""

    links: LinkMetrics
    num_new_sources: int
    num_new_destinations: int

    def as_dict(self) -> dict[str, float | int]:
        """Metrics and counts by name."""
        counts = {"new_sources": self.num_new_sources, "new_destinations": self.num_new_destinations}
        return self.links.as_dict() | counts


@dataclass(frozen=True)
class PartMetrics:
    """Metrics of a model on a part; None for what its task does not include, and without inductive events."""

    links: LinkMetrics | None = None
    inductive: InductiveMetrics | None = None
    classes: ClassMetrics | None = None

    @property
    def score(self) -> float:
        """The metric that selects the best sweep, higher is better: MRR for links, else the score of classes."""
        if self.links is not None:
            return self.links.mrr
        return 0.0 if self.classes is None else self.classes.score

    @property
    def summary(self) -> str:
        """The main metrics as short text."""
        words = [] if self.links is None else [f"MRR {self.links.mrr:.4f}"]
        if self.classes is not None:
            words += [f"F1-micro {self.classes.f1_micro:.4f}, F1-macro {self.classes.f1_macro:.4f}"]
            words += [] if self.classes.roc_auc is None else [f"ROC-AUC {self.classes.roc_auc:.4f}"]
        return ", ".join(words)

    def as_dict(self) -> dict[str, Any]:
        """Link metrics by name, and the other metrics under ``inductive`` and ``classes``."""
        record: dict[str, Any] = {} if self.links is None else asdict(self.links)
        others = {"inductive": self.inductive, "classes": self.classes}
        return record | {name: own.as_dict() for name, own in others.items() if own is not None}


def ranked(
    scores: NDArray[np.floating], new: NewNodes, counted: NDArray[np.bool_] | None = None
) -> PartMetrics:
    """Link metrics from the scores (n, 1 + m) of a part's events, over all and over inductive events.

    counted: (n, m), mask of the negatives that exist; None: all.
    """
    links, chosen = link_metrics(scores[:, 0], scores[:, 1:], counted), new.any
    if not chosen.any():
        return PartMetrics(links)
    some = scores[chosen]
    inductive = InductiveMetrics(
        link_metrics(some[:, 0], some[:, 1:], None if counted is None else counted[chosen]),
        int(new.is_new_source.sum()),
        int(new.is_new_destination.sum()),
    )
    return PartMetrics(links, inductive)
