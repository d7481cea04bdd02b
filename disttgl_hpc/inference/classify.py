"""Node classification on a finished run: small heads are trained on fixed embeddings.

The protocol of JODIE, TGN and TGL: the run's best weights process the stream once from its start, the source
of each event is embedded just before the event, and a head learns to predict its label at that time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from disttgl_hpc.config import CO_TRAINED, TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.evaluation.evaluator import EVENTS_AT_ONCE, MemoryWalk, units, write
from disttgl_hpc.evaluation.heuristics import class_baselines
from disttgl_hpc.evaluation.metrics import ClassCounts, ClassMetrics
from disttgl_hpc.events.stream import EventStream, Split, Targets
from disttgl_hpc.grid.schedule import Batching, GridShape, batch_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.heads import ClassHead, class_loss
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.parameters import Adam, WeightDraws
from disttgl_hpc.model.products import prepare_process, torch_product
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors
from disttgl_hpc.store.files import write_errors, write_text
from disttgl_hpc.store.node_rows import with_static_memory
from disttgl_hpc.training.checkpoints import load_static, load_weights
from disttgl_hpc.training.run_directory import RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.sweep_ends import best_grid, check_files

log = get_logger(__name__)

_EVENTS_AT_ONCE = 1 << 16  # that a head scores


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """Training of the heads: one per seed 0 … ``seeds`` − 1, each for ``epochs`` over the training events.

    balance: weight of rare classes in the loss, as ``class_balance`` of a run.
    """

    seeds: int = 3
    epochs: int = 50
    lr: float = 1e-3
    batch: int = 600
    balance: float = 0.0


def classify(run: RunDirectory, head: HeadSettings, events: Path | None = None) -> dict[str, Any]:
    """Train heads on a run's embeddings, and write the results to RUN/classify.json.

    events: the event store if it was moved. Raises StoreError if a file is missing or of another run,
    ConfigError if the events have no node labels or training events have only one.
    """
    settings = run.read_config()
    config = saved_config(settings)
    prepare_process(config.threads)
    store = open_events(Path(events or settings["events"]), settings["checksum"])
    check_files(run, store)
    # The heads predict node classes, whatever the task of the run.
    node_task = TrainConfig(task="node", class_history=False, class_balance=head.balance)
    targets = with_task(store, node_task).stream.targets
    if targets is None or len(_known(targets, 0, store.stream.split.train_end)) < 2:
        raise ConfigError(
            f"{store.path}: training events must have at least 2 different node labels: use another split"
        )
    stream = with_static_memory(with_task(store, config), config).stream
    embeddings = torch.from_numpy(source_embeddings(run, stream, config))
    heads = [_learn(embeddings, targets, stream.split, head, seed) for seed in range(head.seeds)]
    baselines = class_baselines(stream, targets, stream.split.validation_end, stream.num_events)
    record = {
        "settings": asdict(head),
        "heads": heads,
        "baselines": {name: metrics.as_dict() for name, metrics in baselines.items()},
        "positives": _positives(targets, stream),
    }
    output = run.path / "classify.json"
    with write_errors(output, "free disk space"):
        write_text(output, json.dumps(record, indent=2) + "\n")
    return record


def _known(targets: Targets, first: int, last: int) -> set[int]:
    """Return the labels of events [first, last)."""
    values = targets.values[first:last]
    return set(np.unique(values[values >= 0]).tolist())


def _positives(targets: Targets, stream: EventStream) -> dict[str, int]:
    """Return the number of events with a positive source label in each part of the split."""
    bounds = 0, stream.split.train_end, stream.split.validation_end, stream.num_events
    names = "training", "validation", "test"
    parts = zip(names, bounds[:-1], bounds[1:], strict=True)
    return {name: int((targets.values[first:last] > 0).sum()) for name, first, last in parts}


@torch.no_grad()
def source_embeddings(run: RunDirectory, stream: EventStream, config: TrainConfig) -> NDArray[np.float32]:
    """Return the embedding (E, dim_embedding) of each event's source just before it, with a run's best weights.

    The memory starts empty and advances in the batches of training, then of evaluation.
    """
    device = device_of(config, 0)
    model = build_model(stream, config).to(device)
    load_weights(run.best_checkpoint, model)
    co_trained = None
    if config.static == CO_TRAINED:
        co_trained = np.empty((stream.num_nodes, config.dim_memory), np.float32)
        load_static(run.best_checkpoint, {"rows": co_trained})
    batching = batching_of(stream, config, GridShape.parse(best_grid(run, run.read_best())))
    inputs = InputBuilder(stream, device, co_trained)
    walk = MemoryWalk(stream, config, batching, inputs)
    state = np.zeros((stream.num_nodes, 2 * config.dim_memory), np.float32)
    out = np.empty((stream.num_events, config.dim_embedding), np.float32)

    def embed(batch_first: int, first: int, last: int) -> NDArray[np.float32]:
        """Embed the sources of events [first, last) of the batch that starts at ``batch_first``."""
        src, time, bounds = (
            stream.src[first:last],
            stream.time[first:last],
            event_bounds(stream.time, first, last),
        )
        mfg = walk.index.mfg(recent_neighbors(stream.tcsr, src, time, bounds, config.num_neighbors))
        nodes = walk.nodes(state, mfg.nodes, batch_first)
        h = model.represent(model.update_memory(nodes), nodes)
        embeddings: NDArray[np.float32] = model.embed(h, inputs.graph(mfg)).cpu().numpy()
        return embeddings

    with progress(stream.num_events, "embedding") as bar:
        for first, last in _all_batches(batching, stream):
            for unit in units(first, last, EVENTS_AT_ONCE):
                out[slice(*unit)] = embed(first, *unit)
            write(state, walk.updates(model, state, first, last))
            bar.advance(last - first)
    return out


def _all_batches(batching: Batching, stream: EventStream) -> Iterator[tuple[int, int]]:
    """Yield the batches of training, validation and test."""
    split = batching.split
    for batch in range(batching.num_batches):
        yield batch_bounds(batch, batching.global_batch, split.train_end)
    yield from batching.evaluation_bounds(split.train_end, split.validation_end)
    yield from batching.evaluation_bounds(split.validation_end, stream.num_events)


def _learn(
    embeddings: Tensor, targets: Targets, split: Split, settings: HeadSettings, seed: int
) -> dict[str, Any]:
    """Train a head; return its metrics in the epoch with the best validation score."""
    dim, truth = embeddings.shape[1], torch.from_numpy(np.array(targets.values))
    head = ClassHead(dim, 0, targets.num_classes, WeightDraws(seed), torch_product, of_pair=False)
    optimiser = Adam(head.parameters(), settings.lr)
    weights = None if targets.weights is None else torch.from_numpy(targets.weights)
    best: dict[str, Any] = {}
    best_score = -1.0
    for epoch in range(1, settings.epochs + 1):
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(split.train_end))
        for chosen in torch.split(order, settings.batch):
            head.zero_grad()
            logits = head(embeddings[chosen], embeddings[chosen])
            loss = class_loss(logits, truth[chosen], weights) / len(chosen)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        validation = _metrics(head, embeddings, truth, split.train_end, split.validation_end)
        if validation.score > best_score:
            test = _metrics(head, embeddings, truth, split.validation_end, len(truth))
            best_score = validation.score
            best = {"epoch": epoch, "validation": validation.as_dict(), "test": test.as_dict()}
    log.info("head %d: best after epoch %d, validation %s", seed, best["epoch"], f"{best_score:.4f}")
    return {"seed": seed, **best}


@torch.no_grad()
def _metrics(head: ClassHead, embeddings: Tensor, truth: Tensor, first: int, last: int) -> ClassMetrics:
    """Return the metrics of a head on events [first, last)."""
    counts = ClassCounts(len(head.out.bias))
    for begin in range(first, last, _EVENTS_AT_ONCE):
        part = slice(begin, min(begin + _EVENTS_AT_ONCE, last))
        counts.add(truth[part].numpy(), head(embeddings[part], embeddings[part]).numpy())
    return counts.metrics()
