"""Node classification on the embeddings of a finished run."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from emulation import Replica, model_inputs, write_batch
from mpi4py import MPI
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.errors import ConfigError, StoreError
from disttgl_hpc.grid.schedule import Batching
from disttgl_hpc.inference.classify import HeadSettings, classify, source_embeddings
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.training.checkpoints import load_weights
from disttgl_hpc.training.run_directory import RunDirectory
from disttgl_hpc.training.run_events import with_task
from disttgl_hpc.training.train import train

FEW = HeadSettings(seeds=2, epochs=3, batch=50)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store, and a run on it that predicts links and node classes."""
    folder = tmp_path_factory.mktemp("classify")
    store, config = make_store(folder, dim_edge=2, num_classes=3), TrainConfig(**SMALL, task="link+node")
    run = RunDirectory(folder / "run")
    train(store, config, run, MPI.COMM_SELF)
    return store, config, run


def test_embeddings_are_those_of_stored_mail_event_by_event(trained):
    """Starting with an empty memory: the source's embedding just before each event, in all parts of the split."""
    store, config, run = trained
    stream = with_task(store, config).stream
    found = source_embeddings(run, stream, config)
    model, replica = build_model(stream, config), Replica.empty(stream.num_nodes, config.dim_memory)
    load_weights(run.best_checkpoint, model)
    batching = Batching(stream.split, config.local_batch, config.evaluation_batch)
    cuts = [*range(0, stream.split.train_end, config.local_batch), stream.split.train_end]
    for part in ((stream.split.train_end, stream.split.validation_end), (stream.split.validation_end, 220)):
        cuts += [last for _, last in batching.evaluation_bounds(*part)]
    for first, last in itertools.pairwise(cuts):
        for event in range(first, last):
            inputs, graph, _ = model_inputs(stream, config, replica, [int(stream.src[event])], [event])
            with torch.no_grad():
                h = model.embed(model.represent(model.update_memory(inputs), inputs), graph)
            assert np.allclose(found[event], h[0].numpy(), atol=1e-5), event
        write_batch(stream, model, config, replica, first, last)


def test_heads_are_recorded_with_their_best_epochs_and_repeat(trained):
    store, _, run = trained
    record = classify(run, FEW)
    assert json.loads((run.path / "classify.json").read_text()) == record == classify(run, FEW)
    assert [head["seed"] for head in record["heads"]] == [0, 1]
    assert record["heads"][0]["test"] != record["heads"][1]["test"]
    assert all(1 <= head["epoch"] <= 3 and 0 <= head["test"]["roc_auc"] <= 1 for head in record["heads"])
    assert list(record["baselines"]) == ["majority", "last_label", "share_so_far"]
    assert sum(record["positives"].values()) == store.node_labels.sum()


def test_a_permanent_label_is_learned_from_its_history(tmp_path):
    """All events of odd sources are positive: predictable from past labels, hardly without them."""
    store = make_store(tmp_path, num_events=800)
    store = replace(store, node_labels=(store.stream.src % 2).astype(np.int64))
    found = {}
    for history in (True, False):
        run, options = RunDirectory(tmp_path / f"{history}"), {"epochs": 3, "lr": 1e-2, "task": "node"}
        train(store, TrainConfig(**{**SMALL, **options}, class_history=history), run, MPI.COMM_SELF)
        found[history] = run.records()[-1]["test"]["classes"]["roc_auc"]
    assert found[True] > 0.9
    assert found[False] < 0.8


def test_events_without_labels_and_missing_runs_are_errors(tmp_path):
    store = make_store(tmp_path)
    run = RunDirectory(tmp_path / "run")
    train(store, TrainConfig(**{**SMALL, "epochs": 1}), run, MPI.COMM_SELF)
    with pytest.raises(ConfigError, match="--format jodie"):
        classify(run, FEW)
    with pytest.raises(StoreError, match="run directory"):
        classify(RunDirectory(tmp_path / "other"), FEW)
