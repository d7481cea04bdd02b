"""Static embeddings by a graph network without time: LightGCN over the training graph (He et al., SIGIR 2020).

Who has met whom is a graph, an edge weighing as many events as it stands for. Embeddings are smoothed over
it, and learned so that nodes that meet are more alike than nodes that do not (Bayesian personalised ranking).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import logsigmoid

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.draws import Purpose
from disttgl_hpc.errors import TrainingError
from disttgl_hpc.evaluation.candidates import Candidates, held_out_parts
from disttgl_hpc.evaluation.ranking import LinkMetrics, link_metrics
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.gradients import GradientSum
from disttgl_hpc.grid.schedule import batch_bounds, slice_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.parameters import Adam, WeightDraws
from disttgl_hpc.sampling.negatives import NegativeSampler, training_candidates

log = get_logger(__name__)

NUM_LAYERS = 2
_SPREAD = 0.1  # of the initial embeddings
_EVENTS_AT_ONCE = 1000  # in validation: some 20 MB


@dataclass(frozen=True)
class Learned:
    """Rows (N, dim) float32 of the best epoch, and what it came to in each."""

    rows: NDArray[np.float32]
    report: dict[str, Any]


def training_graph(stream: EventStream) -> Tensor:
    """D^(−1/2) A D^(−1/2) of the training split as a sparse tensor (N, N): A counts the events of each pair."""
    end = stream.split.train_end
    src, dst = (np.asarray(ends[:end], np.int64) for ends in (stream.src, stream.dst))
    both = np.stack([np.concatenate([src, dst]), np.concatenate([dst, src])])
    size = (stream.num_nodes, stream.num_nodes)
    counts = torch.sparse_coo_tensor(
        torch.from_numpy(both), torch.ones(2 * end), size, check_invariants=True
    ).coalesce()
    degree = torch.zeros(size[0]).index_add_(0, counts.indices()[0], counts.values())
    scale = degree.rsqrt()[counts.indices()].prod(0)
    return torch.sparse_coo_tensor(
        counts.indices(), counts.values() * scale, size, check_invariants=True, is_coalesced=True
    )


def smoothed(graph: Tensor, embeddings: Tensor) -> Tensor:
    """Mean of the embeddings (N, dim) after 0, 1, … NUM_LAYERS steps over the graph."""
    layers = [embeddings]
    for _ in range(NUM_LAYERS):
        layers.append(graph @ layers[-1])
    return torch.stack(layers).mean(0)


def learn_static_gnn(stream: EventStream, config: TrainConfig, trainers: Any) -> Learned:
    """Embeddings of the training split's graph, learned by all ranks of ``trainers``. Collective.

    Each takes a slice of every batch; gradients are summed as in training. Validation chooses the epoch.
    Nodes without training events get zeros, the others rows of unit size. Raises TrainingError if the loss is
    NaN or infinite any more.
    """
    graph = training_graph(stream)
    embeddings = WeightDraws(config.seed).uniform((stream.num_nodes, config.dim_memory), _SPREAD)
    optimiser = Adam([embeddings], config.lr, config.static_decay)
    gradients = GradientSum([embeddings], trainers, config.timeout_s)
    loss_of = _slice_loss(stream, config)
    epochs: list[dict[str, float]] = []
    best, best_mrr = embeddings.detach(), -1.0
    num_batches = -(-stream.split.train_end // config.local_batch)
    with progress(config.epochs * num_batches, "learning", shown=trainers.rank == 0) as bar:
        for epoch in range(config.epochs):
            total = 0.0
            for batch in range(num_batches):
                first, last = batch_bounds(batch, config.local_batch, stream.split.train_end)
                own = slice_bounds(first, last, trainers.size, trainers.rank)
                gradients.zero()
                loss = loss_of(smoothed(graph, embeddings), *own, epoch)
                loss.backward()  # type: ignore[no-untyped-call]
                gradients.sum(own[1] - own[0], loss.item())
                if not gradients.is_finite:
                    raise TrainingError(f"the loss in epoch {epoch + 1} must be a number: lower --lr")
                optimiser.step()
                total += loss.item()
                bar.advance(1)
            with torch.no_grad():
                rows = smoothed(graph, embeddings)
            mrr = _validate(stream, config, rows).mrr
            epochs.append({"loss": sum(trainers.allgather(total)) / stream.split.train_end, "mrr": mrr})
            log.info("epoch %d: loss %.4f, validation MRR %.4f", epoch + 1, *epochs[-1].values())
            if mrr > best_mrr:
                best, best_mrr = rows, mrr
    gradients.free()
    known = np.zeros(stream.num_nodes, np.bool_)
    for ends in (stream.src, stream.dst):
        known[ends[: stream.split.train_end]] = True
    return Learned(_of_unit_size(best.numpy(), known), {"epochs": epochs, "best_mrr": best_mrr})


def _slice_loss(stream: EventStream, config: TrainConfig) -> Callable[[Tensor, int, int, int], Tensor]:
    """The summed loss of events [first, last) in an epoch, given the rows (N, dim): −ln σ(u·v − u·negative)."""
    candidates = training_candidates(stream)
    negatives = NegativeSampler(stream, candidates, config.seed, Purpose.TRAINING_NEGATIVES)

    def loss(rows: Tensor, first: int, last: int, epoch: int) -> Tensor:
        drawn = negatives.draw(first, last, 1, negative_set=epoch)[:, 0]
        src, dst = (
            torch.from_numpy(np.asarray(ends[first:last], np.int64)) for ends in (stream.src, stream.dst)
        )
        preferred = rows[dst] - rows[torch.from_numpy(drawn)]
        return -logsigmoid((rows[src] * preferred).sum(1)).sum()

    return loss


def _validate(stream: EventStream, config: TrainConfig, rows: Tensor) -> LinkMetrics:
    """How inner products rank the held-out events, without memory and without time."""
    part, _ = held_out_parts(stream, config)
    candidates = Candidates(stream, config)
    pieces = []
    for first in range(part.first, part.scored_last, _EVENTS_AT_ONCE):
        last = min(first + _EVENTS_AT_ONCE, part.scored_last)
        src, asked = np.asarray(stream.src[first:last], np.int64), candidates.of(first, last)
        found = torch.einsum("ed,ecd->ec", rows[torch.from_numpy(src)], rows[torch.from_numpy(asked)])
        pieces.append(found.numpy())
    scores = np.concatenate(pieces)
    return link_metrics(scores[:, 0], scores[:, 1:])


def _of_unit_size(rows: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Rows of known nodes, scaled together to a root mean square of 1 as the model's weights expect; others 0."""
    scale = np.sqrt(np.mean(np.square(rows[known], dtype=np.float64)))
    return np.where(known[:, None], rows / np.float32(max(scale, 1e-12)), np.float32(0))
