"""Static node embeddings by LightGCN over the graph of training events (He et al., SIGIR 2020).

The graph ignores time: the weight of an edge is the number of events between its two nodes. Embeddings are
smoothed over the graph and trained with the Bayesian personalised ranking loss.
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
from disttgl_hpc.evaluation.metrics import LinkMetrics, link_metrics
from disttgl_hpc.events.stream import EventStream
from disttgl_hpc.grid.collectives import allgather
from disttgl_hpc.grid.gradients import GradientSum
from disttgl_hpc.grid.schedule import batch_bounds, slice_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.parameters import Adam, WeightDraws
from disttgl_hpc.sampling.negatives import NegativeSampler, training_candidates

log = get_logger(__name__)

NUM_LAYERS = 2
_SPREAD = 0.1  # bound of the uniform initial embeddings
_EVENTS_AT_ONCE = 1000  # in validation; about 20 MB


@dataclass(frozen=True)
class Learned:
    """Rows (N, dim) float32 of the best epoch, and the loss and validation MRR of each epoch."""

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
    """Train embeddings on the graph of the training split with all ranks of ``trainers``. Collective.

    Each rank computes a slice of every batch; gradients are summed as in training. The best validation MRR
    selects the epoch. Nodes without training events have zero rows; the others have a root mean square of 1.
    Raises TrainingError if the loss becomes NaN or infinite.
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
                    raise TrainingError(
                        f"NaN or infinite loss in epoch {epoch + 1}: lower --lr (now {config.lr:g})"
                    )
                optimiser.step()
                total += loss.item()
                bar.advance(1)
            with torch.no_grad():
                rows = smoothed(graph, embeddings)
            mrr = _validate(stream, config, rows).mrr
            losses = allgather(trainers, total, config.timeout_s, "the losses of an epoch")
            epochs.append({"loss": sum(losses) / stream.split.train_end, "mrr": mrr})
            log.info("epoch %d: loss %.4f, validation MRR %.4f", epoch + 1, *epochs[-1].values())
            if mrr > best_mrr:
                best, best_mrr = rows, mrr
    gradients.free()
    known = np.zeros(stream.num_nodes, np.bool_)
    for ends in (stream.src, stream.dst):
        known[ends[: stream.split.train_end]] = True
    return Learned(_of_unit_size(best.numpy(), known), {"epochs": epochs, "best_mrr": best_mrr})


def _slice_loss(stream: EventStream, config: TrainConfig) -> Callable[[Tensor, int, int, int], Tensor]:
    """Return loss(rows (N, dim), first, last, epoch): sum of −ln σ(u·v − u·negative) over events [first, last)."""
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
    """Rank the held-out events by inner products of ``rows`` (N, dim)."""
    part, _ = held_out_parts(stream, config)
    candidates = Candidates(stream, config)
    pieces = []
    for first in range(part.first, part.scored_last, _EVENTS_AT_ONCE):
        last = min(first + _EVENTS_AT_ONCE, part.scored_last)
        src, dst = np.asarray(stream.src[first:last], np.int64), candidates.of(first, last)
        found = torch.einsum("ed,ecd->ec", rows[torch.from_numpy(src)], rows[torch.from_numpy(dst)])
        pieces.append(found.numpy())
    scores = np.concatenate(pieces)
    return link_metrics(scores[:, 0], scores[:, 1:])


def _of_unit_size(rows: NDArray[np.float32], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Scale the rows of known nodes to a root mean square of 1, as the model's weights expect; zero the others."""
    scale = np.sqrt(np.mean(np.square(rows[known], dtype=np.float64)))
    return np.where(known[:, None], rows / np.float32(max(scale, 1e-12)), np.float32(0))
