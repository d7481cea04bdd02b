"""Queries of a trained run: embeddings of nodes, scores of pairs, the best destinations of a node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from disttgl_hpc.errors import ConfigError
from disttgl_hpc.evaluation.evaluator import units
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.events.tcsr import Ints
from disttgl_hpc.inference.trained_run import Moment, Trained
from disttgl_hpc.log import progress
from disttgl_hpc.model.inputs import GraphInputs
from disttgl_hpc.sampling.mail import partners_between
from disttgl_hpc.sampling.neighbors import recent_neighbors
from disttgl_hpc.sampling.pair_features import pair_features

_ROOTS_AT_ONCE = 256
_PAIRS_AT_ONCE = 1 << 16
_LARGEST_TABLE = 1 << 22  # scores in memory at a time


def embed(trained: Trained, nodes: NDArray[np.int64], moment: Moment) -> NDArray[np.float32]:
    """Return the embeddings (n, dim_embedding) of ``nodes`` (n,) at a moment.

    They depend only on the run and on the events before the moment, bit for bit: nodes are processed in
    groups that depend neither on the requested nodes nor on nodes without earlier events.
    """
    out = np.empty((len(nodes), trained.config.dim_embedding), np.float32)
    if not len(nodes):
        return out
    wanted, rows = np.unique(nodes, return_inverse=True)
    found = np.empty((len(wanted), trained.config.dim_embedding), np.float32)
    with trained.memory(moment.position) as state, progress(len(wanted), "embedding", unit="nodes") as bar:
        for group in _groups(trained.stream, wanted, moment.position):
            embeddings = _represent(trained, state, group, moment, None)[0].cpu().numpy()
            places = np.searchsorted(wanted, group)
            is_wanted = wanted[np.minimum(places, len(wanted) - 1)] == group
            found[places[is_wanted]] = embeddings[is_wanted]
            bar.advance(int(is_wanted.sum()))
    return np.take(found, rows, axis=0, out=out)


def score(
    trained: Trained, src: NDArray[np.int64], dst: NDArray[np.int64], at: NDArray[Any] | None = None
) -> NDArray[np.float32]:
    """Return logits (n,) of links between ``src`` (n,) and ``dst`` (n,) at times ``at`` (n,) or after the last event.

    Each pair is scored as if it were the next event at its time; all pairs share one pass over the stream.
    Raises ConfigError if the run has no link head.
    """
    _check_links(trained)
    logits = np.empty(len(src), np.float32)
    with progress(len(src), "scoring", unit="pairs") as bar:
        for moment, rows in _by_moment(trained, len(src), at):
            with trained.memory(moment.position) as state:
                for first, last in units(0, len(rows), _ROOTS_AT_ONCE // 2):
                    part = rows[first:last]
                    roots = np.stack([src[part], dst[part]], axis=1)
                    embeddings, graph = _represent(trained, state, roots.ravel(), moment, roots)
                    ends = embeddings.view(len(part), 2, -1)
                    scores = trained.model.scores(ends[:, :1], ends[:, 1:], graph.pairs)
                    logits[part] = scores[:, 0].cpu().numpy()
                    bar.advance(len(part))
    return logits


@dataclass(frozen=True)
class Recommended:
    """The best destinations of each node, best first; ranks start at 1. Arrays (m,): logits float32, others int64."""

    src: NDArray[np.int64]
    rank: NDArray[np.int64]
    dst: NDArray[np.int64]
    logit: NDArray[np.float32]


def recommend(
    trained: Trained, src: NDArray[np.int64], top: int, moment: Moment, *, exclude_seen: bool = False
) -> Recommended:
    """Return the ``top`` destinations with the highest scores for each of ``src`` (n,) at a moment.

    Candidates are destinations with an earlier event, except the node itself and, with ``exclude_seen``, its
    past partners. Ties are ordered by node; nodes with fewer candidates have fewer rows. Raises ConfigError
    if the run has no link head.
    """
    _check_links(trained)
    stream = trained.stream
    first, last = trained.ids.destinations
    candidates = np.arange(first, last)[stream.tcsr.known_before(moment.position)[first:last]]
    embeddings = torch.from_numpy(embed(trained, candidates, moment)).to(trained.device)
    sources = torch.from_numpy(embed(trained, src, moment)).to(trained.device)
    parts = []
    with progress(len(src), "ranking", unit="nodes") as bar:
        for begin, end in units(0, len(src), max(1, _LARGEST_TABLE // max(1, len(candidates)))):
            scores = np.empty((end - begin, len(candidates)), np.float32)
            for left, right in units(0, len(candidates), max(1, _PAIRS_AT_ONCE // (end - begin))):
                ends = sources[begin:end], embeddings[left:right]
                scores[:, left:right] = _scores(trained, src[begin:end], candidates[left:right], moment, ends)
            _leave_out(scores, stream, src[begin:end], candidates, moment.position if exclude_seen else 0)
            best = np.argsort(-scores, axis=1, kind="stable")[:, :top]
            parts.append((np.take_along_axis(scores, best, axis=1), candidates[best]))
            bar.advance(end - begin)
    parts = parts or [(np.empty((0, 0), np.float32), np.empty((0, 0), np.int64))]
    logits, found = (np.concatenate([part[column] for part in parts]) for column in (0, 1))
    rows, ranks = np.nonzero(logits > -np.inf)
    return Recommended(src[rows], ranks + 1, found[rows, ranks], logits[rows, ranks])


def _check_links(trained: Trained) -> None:
    if not trained.config.predicts_links:
        raise ConfigError(
            f"scores need a run that predicts links, found task {trained.config.task}: train with --task link"
        )


def probability(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sigmoid of the logits: the probability that a pair is an event rather than a random negative."""
    return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)


def _represent(
    trained: Trained,
    state: NDArray[np.float32],
    roots: NDArray[np.int64],
    moment: Moment,
    ends: NDArray[np.int64] | None,
) -> tuple[torch.Tensor, GraphInputs]:
    """Return embeddings of ``roots`` (R,) at a moment, and their graph; ``ends`` (n, 2) adds pair features."""
    stream, config, model = trained.stream, trained.config, trained.model
    times = np.full(len(roots), moment.time, stream.time.dtype)
    bounds = np.full(len(roots), moment.position)
    mfg = trained.walk.index.mfg(recent_neighbors(stream.tcsr, roots, times, bounds, config.num_neighbors))
    pairs = None
    if config.pair_features and ends is not None:
        pairs = pair_features(stream.tcsr, ends[:, 0], ends[:, 1:], bounds[: len(ends)])
    nodes = trained.walk.nodes(state, mfg.nodes, moment.position)
    h = model.represent(model.update_memory(nodes), nodes)
    graph = trained.inputs.graph(mfg, pairs)
    return model.embed(h, graph), graph


@torch.no_grad()
def _scores(
    trained: Trained,
    src: NDArray[np.int64],
    dst: NDArray[np.int64],
    moment: Moment,
    embeddings: tuple[torch.Tensor, torch.Tensor],
) -> NDArray[np.float32]:
    """Return logits (n, c) of ``src`` (n,) with all of ``dst`` (c,), from the ``embeddings`` of both."""
    pairs = None
    if trained.config.pair_features:
        candidates = np.broadcast_to(dst, (len(src), len(dst)))
        features = pair_features(trained.stream.tcsr, src, candidates, np.full(len(src), moment.position))
        pairs = torch.from_numpy(features).to(trained.device)
    logits = trained.model.scores(embeddings[0][:, None], embeddings[1][None], pairs)
    return np.asarray(logits.cpu().numpy())


def _leave_out(
    scores: NDArray[np.float32],
    stream: EventStream,
    src: NDArray[np.int64],
    candidates: NDArray[np.int64],
    position: int,
) -> None:
    """Set scores (n, c) of the sources themselves, and of their partners before ``position``, to −∞."""
    if not len(candidates):
        return
    met = partners_between(stream.tcsr, src, 0, position)
    sizes = np.diff(met.begins, append=len(met.items))
    rows = np.concatenate([np.arange(len(src)), np.repeat(np.arange(len(src)), sizes)])
    nodes = np.concatenate([src, met.items])
    columns = np.minimum(np.searchsorted(candidates, nodes), len(candidates) - 1)
    is_candidate = candidates[columns] == nodes
    scores[rows[is_candidate], columns[is_candidate]] = -np.inf


def _by_moment(
    trained: Trained, count: int, at: NDArray[Any] | None
) -> Iterator[tuple[Moment, NDArray[np.int64]]]:
    """Yield the moments in order, each with the indices of its pairs."""
    if at is None or not count:
        yield trained.moment(), np.arange(count)
        return
    times, numbers = np.unique(at, return_inverse=True)
    order = np.argsort(numbers, kind="stable")
    ends = np.cumsum(np.bincount(numbers, minlength=len(times)))
    moments = [
        trained.moment(time) for time in times.tolist()
    ]  # all times are checked before the first is computed
    yield from zip(moments, np.split(order, ends[:-1]), strict=True)


def _groups(stream: EventStream, wanted: Ints, position: int) -> Iterator[NDArray[np.int64]]:
    """Yield the groups of nodes, ascending, that contain one of ``wanted`` and are processed together.

    Nodes with and without earlier events are in separate groups.
    """
    have_past = stream.tcsr.known_before(position)
    for is_kind in (have_past, ~have_past):
        nodes = np.flatnonzero(is_kind)
        places = np.searchsorted(nodes, wanted[is_kind[wanted]])
        for group in np.unique(places // _ROOTS_AT_ONCE):
            yield nodes[group * _ROOTS_AT_ONCE : (group + 1) * _ROOTS_AT_ONCE]
