"""Node classes from a finished run: a small head is trained on frozen embeddings.

The way of JODIE, TGN and TGL: the run's best weights walk the stream once from its begin, the source of every event
is embedded just before it, and a head learns that source's state at that time.
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
from disttgl_hpc.evaluation.classes import ClassMetrics, class_baselines, class_metrics
from disttgl_hpc.evaluation.evaluator import EVENTS_AT_ONCE, MemoryWalk, units, write
from disttgl_hpc.events.stream import EventStream, Split, Targets
from disttgl_hpc.grid.schedule import Batching, GridShape, batch_bounds
from disttgl_hpc.log import get_logger, progress
from disttgl_hpc.model.heads import ClassHead, class_loss
from disttgl_hpc.model.input_builder import InputBuilder, build_model, device_of
from disttgl_hpc.model.parameters import Adam, WeightDraws
from disttgl_hpc.model.products import prepare_process, torch_product
from disttgl_hpc.model.tgn import Tgn
from disttgl_hpc.planning.run_plan import batching_of
from disttgl_hpc.sampling.neighbors import event_bounds, recent_neighbors
from disttgl_hpc.store.files import replacing
from disttgl_hpc.training.checkpoints import load_static, load_weights
from disttgl_hpc.training.run_directory import RunDirectory, open_events, saved_config
from disttgl_hpc.training.run_events import with_static_memory, with_task
from disttgl_hpc.training.sweep_ends import best_grid, check_files

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How the heads learn: ``seeds`` of them, with seeds 0, 1, …; each for ``epochs`` over the training events.

    balance: how much more the rare state weighs in the loss, as ``class_balance`` of a run.
    """

    seeds: int = 3
    epochs: int = 50
    lr: float = 1e-3
    batch: int = 600
    balance: float = 0.0


def classify(run: RunDirectory, how: HeadSettings, events: Path | None = None) -> dict[str, Any]:
    """Learn node classes on a run's embeddings, and write the result to RUN/classify.json.

    events: the event store, if it is no longer where the run found it. Raises StoreError if a file is missing or is
    not the one the run was made with, ConfigError if the events have no node labels or training has only one.
    """
    settings = run.read_config()
    config = saved_config(settings)
    prepare_process(config.threads)
    store = open_events(Path(events or settings["events"]), settings["checksum"])
    check_files(run, store)
    # What is asked are node classes, whatever the run was trained on.
    asked = TrainConfig(task="node", class_history=False, class_balance=how.balance)
    targets = with_task(store, asked).stream.targets
    if targets is None or len(_known(targets, 0, store.stream.split.train_end)) < 2:
        raise ConfigError(
            f"{store.path}: all sources of training events have the same label: there is nothing to learn"
        )
    stream = with_task(with_static_memory(store, config), config).stream
    embeddings = torch.from_numpy(source_embeddings(run, stream, config))
    heads = [_learn(embeddings, targets, stream.split, how, seed) for seed in range(how.seeds)]
    baselines = class_baselines(stream, targets, stream.split.validation_end, stream.num_events)
    record = {
        "settings": asdict(how),
        "heads": heads,
        "baselines": {name: metrics.as_dict() for name, metrics in baselines.items()},
        "positives": _positives(targets, stream),
    }
    with replacing(run.path / "classify.json") as partial:
        partial.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def _known(targets: Targets, first: int, last: int) -> set[int]:
    """The labels that events [first, last) have."""
    values = targets.values[first:last]
    return set(np.unique(values[values >= 0]).tolist())


def _positives(targets: Targets, stream: EventStream) -> dict[str, int]:
    """How many events of each part have a source in the state."""
    bounds = 0, stream.split.train_end, stream.split.validation_end, stream.num_events
    names = "training", "validation", "test"
    parts = zip(names, bounds[:-1], bounds[1:], strict=True)
    return {name: int((targets.values[first:last] > 0).sum()) for name, first, last in parts}


@torch.no_grad()
def source_embeddings(run: RunDirectory, stream: EventStream, config: TrainConfig) -> NDArray[np.float32]:
    """Embedding (E, dim_embedding) of every event's source just before it, by a run's best weights.

    The memory begins empty with the first event and moves on in the batches of training and of evaluation.
    """
    device = device_of(config, 0)
    model = build_model(stream, config).to(device)
    load_weights(run.best_checkpoint, model)
    co_trained = None
    if config.static == CO_TRAINED:
        co_trained = np.empty((stream.num_nodes, config.dim_memory), np.float32)
        load_static(run.best_checkpoint, {"rows": co_trained})
    batching = batching_of(stream, config, GridShape.parse(best_grid(run)))
    inputs = InputBuilder(stream, device, co_trained)
    walk = MemoryWalk(stream, config, batching, inputs)
    state = np.zeros((stream.num_nodes, 2 * config.dim_memory), np.float32)
    out = np.empty((stream.num_events, config.dim_embedding), np.float32)
    with progress(stream.num_events, "embedding") as bar:
        for first, last in _all_batches(batching, stream):
            for unit in units(first, last, EVENTS_AT_ONCE):
                out[slice(*unit)] = _embed(walk, inputs, model, stream, config, state, first, unit)
            write(state, walk.updates(model, state, first, last))
            bar.advance(last - first)
    return out


def _all_batches(batching: Batching, stream: EventStream) -> Iterator[tuple[int, int]]:
    """Batches of the whole stream: of training, of validation, of test."""
    split = batching.split
    for batch in range(batching.num_batches):
        yield batch_bounds(batch, batching.global_batch, split.train_end)
    yield from batching.evaluation_bounds(split.train_end, split.validation_end)
    yield from batching.evaluation_bounds(split.validation_end, stream.num_events)


def _embed(  # noqa: PLR0917
    walk: MemoryWalk,
    inputs: InputBuilder,
    model: Tgn,
    stream: EventStream,
    config: TrainConfig,
    state: NDArray[np.float32],
    batch_first: int,
    unit: tuple[int, int],
) -> NDArray[np.float32]:
    """Embeddings (n, dim_embedding) of the sources of a unit's events, in the batch from ``batch_first`` on."""
    where = slice(*unit)
    bounds = event_bounds(stream.time, *unit)
    hood = recent_neighbors(stream.tcsr, stream.src[where], stream.time[where], bounds, config.num_neighbors)
    mfg = walk.index.mfg(hood)
    nodes = walk.nodes(state, mfg.nodes, batch_first)
    h = model.represent(model.update_memory(nodes), nodes)
    embeddings: NDArray[np.float32] = model.embed(h, inputs.graph(mfg)).cpu().numpy()
    return embeddings


def _learn(
    embeddings: Tensor, targets: Targets, split: Split, how: HeadSettings, seed: int
) -> dict[str, Any]:
    """A head's metrics in its best epoch on validation."""
    dim, truth = embeddings.shape[1], torch.from_numpy(np.array(targets.values))
    head = ClassHead(dim, 0, targets.num_classes, WeightDraws(seed), torch_product, of_pair=False)
    optimiser = Adam(head.parameters(), how.lr)
    weights = None if targets.weights is None else torch.from_numpy(targets.weights)
    best: dict[str, Any] = {}
    best_score = -1.0
    for epoch in range(1, how.epochs + 1):
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(split.train_end))
        for chosen in torch.split(order, how.batch):
            head.zero_grad()
            logits = head(embeddings[chosen], embeddings[chosen])
            loss = class_loss(logits, truth[chosen], weights) / len(chosen)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        validation = _told(head, embeddings, truth, split.train_end, split.validation_end)
        if validation.score > best_score:
            test = _told(head, embeddings, truth, split.validation_end, len(truth))
            best_score = validation.score
            best = {"epoch": epoch, "validation": validation.as_dict(), "test": test.as_dict()}
    log.info("head %d: best after epoch %d, validation %s", seed, best["epoch"], f"{best_score:.4f}")
    return {"seed": seed, **best}


@torch.no_grad()
def _told(head: ClassHead, embeddings: Tensor, truth: Tensor, first: int, last: int) -> ClassMetrics:
    """What a head reaches on events [first, last)."""
    logits = head(embeddings[first:last], embeddings[first:last])
    return class_metrics(truth[first:last].numpy(), logits.numpy())
