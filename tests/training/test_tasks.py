import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_team import evaluator_of, memory_of, run_team
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TASKS, TrainConfig
from disttgl_hpc.errors import ConfigError
from disttgl_hpc.evaluation import evaluator as evaluation
from disttgl_hpc.evaluation.candidates import held_out_parts
from disttgl_hpc.evaluation.metrics import NewNodes, link_metrics, ranked
from disttgl_hpc.events.stream import Targets
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.sampling.class_features import event_rows, event_scale
from disttgl_hpc.training.run_events import check_batches_fit, class_weights, with_task


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("events"), dim_edge=2, num_classes=3)


def config_of(**options):
    return TrainConfig(**{**SMALL, **options})


def test_tasks_are_links_classes_or_both():
    assert [config_of(task=task).predicts_links for task in TASKS] == [True, False, True, False, True]
    assert [config_of(task=task).class_kind for task in TASKS] == ["", "edge", "edge", "node", "node"]
    assert [config_of(task=task, negatives_per_event=3).drawn_negatives for task in TASKS] == [3, 0, 3, 0, 3]


def test_links_alone_leave_the_events_as_they_are(store):
    assert with_task(store, config_of()) is store


def test_past_classes_are_features_behind_those_of_the_events(store):
    stream, events = with_task(store, config_of(task="edge")).stream, np.array([5, 0, 219, 5])
    rows = event_rows(stream, events)
    assert (rows[:, :2] == store.stream.edge_features[events]).all()
    assert (rows[:, 2:] == np.eye(3)[store.stream.edge_labels[events]]).all()
    assert (stream.targets.num_classes, stream.targets.known, stream.dim_edge) == (3, None, 5)
    plain = with_task(store, config_of(task="edge", class_history=False)).stream
    assert (event_rows(plain, events) == store.stream.edge_features[events]).all()


@pytest.mark.parametrize("task", ["edge", "link+edge", "node"])
def test_a_task_copies_neither_features_nor_classes(tmp_path, task):
    """Every process of a job, daemons included, calls it: tables of events must stay mapped."""
    large = make_store(tmp_path, num_events=20_000, dim_edge=50, num_classes=3)
    tracemalloc.start()
    stream = with_task(large, config_of(task=task)).stream
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * stream.num_events  # less than a number for every event
    assert np.shares_memory(stream.edge_features, large.stream.edge_features)


@pytest.mark.parametrize("dtype", [np.int8, None])
def test_past_classes_join_small_features_and_none_with_a_scale_of_one(store, dtype):
    own = None if dtype is None else np.ones((store.stream.num_events, 2), dtype)
    scale = None if dtype is None else np.full(2, 0.5, np.float32)
    given = replace(store, stream=replace(store.stream, edge_features=own, edge_scale=scale))
    stream = with_task(given, config_of(task="edge")).stream
    assert event_rows(stream, np.arange(4)).dtype == np.int8
    assert event_scale(stream).tolist() == ([] if dtype is None else [0.5, 0.5]) + [1, 1, 1]


def test_known_features_do_not_hold_the_class(store):
    """The features that an event's own class is told from are those of the events alone."""
    targets = with_task(store, config_of(task="edge", class_features=True)).stream.targets
    assert targets.known is store.stream.edge_features


def test_a_node_has_a_state_or_it_has_not(store):
    labels = np.where(store.node_labels > 0, 7, 0)
    labels[5] = -3  # which nobody knows
    targets = with_task(replace(store, node_labels=labels), config_of(task="node")).stream.targets
    assert (targets.num_classes, targets.of_pair) == (2, False)
    expected = np.array(store.node_labels)
    expected[5] = -1
    assert (targets.values == expected).all()


@pytest.mark.parametrize(("task", "remedy"), [("edge", "--label-by-file"), ("link+node", "--format jodie")])
def test_events_without_classes_are_refused_with_a_remedy(tmp_path, task, remedy):
    with pytest.raises(ConfigError, match=remedy):
        with_task(make_store(tmp_path), config_of(task=task))


@pytest.mark.parametrize("label", [3, 100_000, 2**63 - 1])
def test_a_class_without_a_name_is_refused(store, label):
    labels = np.array(store.stream.edge_labels)
    labels[7] = label
    named = replace(store, class_names=("a", "b", "c"), stream=replace(store.stream, edge_labels=labels))
    with pytest.raises(ConfigError, match=rf"3 classes.*event 7 has class {label}"):
        with_task(named, config_of(task="edge"))


@pytest.mark.parametrize("label", [100_000, 2**63 - 1])
def test_more_classes_than_a_model_can_predict_are_refused(store, label):
    labels = np.array(store.stream.edge_labels)
    labels[7] = label
    unnamed = replace(store, stream=replace(store.stream, edge_labels=labels))
    names = tuple(map(str, range(100_000)))
    for events in (unnamed, replace(store, class_names=names)):
        with pytest.raises(ConfigError, match="at most 65,536 classes"):
            with_task(events, config_of(task="edge"))


def test_training_events_without_any_label_are_refused(store):
    unknown = replace(store, node_labels=np.full(store.stream.num_events, -1))
    with pytest.raises(ConfigError, match="no training event has a label"):
        with_task(unknown, config_of(task="node"))


def test_options_without_anything_to_work_on_are_refused(store, tmp_path):
    with pytest.raises(ConfigError, match="the task has no classes"):
        with_task(store, config_of(class_features=True))
    with pytest.raises(ConfigError, match="the events have no features"):
        with_task(make_store(tmp_path, num_classes=2), config_of(task="edge", class_features=True))
    with pytest.raises(ConfigError, match="leave --batches out"):
        check_batches_fit(config_of(task="edge"))
    check_batches_fit(config_of(task="link+edge"))


def test_weights_make_rare_classes_weigh_as_much_as_common_ones():
    values = np.array([0, 0, 0, 1, 2, 2])  # class 2 and 3 do not occur in the first four
    weights = class_weights(Targets(values, 4), 4, 1.0)
    assert weights.tolist() == pytest.approx([2 / 3, 2, 1, 1])
    assert (weights[values[:4]]).mean() == pytest.approx(1)
    assert class_weights(Targets(values, 4), 4, 0.5)[1] / class_weights(Targets(values, 4), 4, 0.5)[
        0
    ] == pytest.approx(3**0.5)
    assert class_weights(Targets(values, 4), 4, 0.0) is None
    several = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]], np.uint8)
    assert class_weights(Targets(several, 3), 4, 1.0).tolist() == [3, 1, 1]


@pytest.mark.parametrize("task", ["edge", "link+edge", "link+node"])
def test_pitfall_19_classes_do_not_depend_on_who_shares_the_work(store, monkeypatch, task):
    monkeypatch.setattr(evaluation, "EVENTS_AT_ONCE", 3)
    stream = with_task(store, config_of(task=task)).stream
    (alone,), _ = run_team(stream, 1, 1, task=task)
    results, _ = run_team(stream, 3, 3, task=task)
    assert results == [alone] * 3
    assert all(metrics.classes.num_events == 33 for metrics in alone)
    assert [metrics.links is None for metrics in alone] == [task == "edge"] * 2


def test_an_evaluation_holds_no_score_of_every_event_and_class(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "EVENTS_AT_ONCE", 5)
    store, config = make_store(tmp_path, num_events=2_000, num_classes=3), config_of(task="edge")
    named = replace(store, class_names=tuple(map(str, range(10_000))))
    stream = with_task(named, config).stream
    part, model = held_out_parts(stream, config)[0], build_model(stream, config)
    evaluator, memory = evaluator_of(stream, task="edge"), memory_of(stream)
    evaluator.evaluate(model, memory.copy(), part)  # compiles loops, which takes memory of its own
    tracemalloc.start()
    metrics = evaluator.evaluate(model, memory, part)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert metrics.classes.num_events == 300
    assert peak < 300 * 10_000


def test_pitfall_23_no_event_sees_its_own_class_or_a_later_one(store, monkeypatch):
    """Other classes from some event on leave all scores before and at it as they are, up to those of its time."""
    config = config_of(task="link+edge", evaluation_batch=7)
    part, scores = held_out_parts(store.stream, config)[0], []
    hidden = part.first + 14  # where a batch begins, and later than all that share the time of one before
    while store.stream.time[hidden] == store.stream.time[hidden - 1]:
        hidden += 7
    labels = np.array(store.stream.edge_labels)
    for change in (0, 1):
        labels[hidden:] = (labels[hidden:] + change) % 3
        changed = replace(store, stream=replace(store.stream, edge_labels=labels.copy()))
        stream = with_task(changed, config).stream
        evaluator = evaluator_of(stream, **{"task": "link+edge", "evaluation_batch": 7})
        seen, score = [], evaluator.score
        monkeypatch.setattr(
            evaluator, "score", lambda *unit, seen=seen, score=score: seen.append(score(*unit)) or seen[-1]
        )
        evaluator.evaluate(build_model(stream, config), memory_of(stream), part)
        scores.append(
            [np.concatenate([getattr(unit, name) for unit in seen]) for name in ("classes", "links")]
        )
    for one, other in zip(*scores, strict=True):
        until = hidden - part.first
        assert (one[: until + 1] == other[: until + 1]).all()
        assert (one[until + 1 :] != other[until + 1 :]).any()


@torch.no_grad()
def test_inductive_events_are_those_with_an_end_that_training_has_not_seen(store):
    stream = store.stream
    seen = {*stream.src[: stream.split.train_end].tolist(), *stream.dst[: stream.split.train_end].tolist()}
    first, last = stream.split.train_end, stream.num_events
    new = NewNodes.of(stream, first, last)
    ends = [
        (int(stream.src[event]) not in seen, int(stream.dst[event]) not in seen)
        for event in range(first, last)
    ]
    assert list(zip(new.is_new_source.tolist(), new.is_new_destination.tolist(), strict=True)) == ends
    chosen = [any(pair) for pair in ends]
    assert 0 < sum(chosen) < len(chosen)
    scores = np.random.default_rng(0).random((last - first, 5))
    found = ranked(scores, new)
    assert found.inductive.links == link_metrics(scores[chosen, 0], scores[chosen, 1:])
    assert found.links == link_metrics(scores[:, 0], scores[:, 1:])
    record = found.as_dict()["inductive"]
    assert (record["new_sources"], record["new_destinations"]) == tuple(np.sum(ends, axis=0))
    counted = scores[:, 1:] > 0.3
    partly = ranked(scores, new, counted).inductive.links
    assert partly == link_metrics(scores[chosen, 0], scores[chosen, 1:], counted[chosen])


def test_without_new_nodes_nothing_is_inductive():
    nobody = NewNodes(np.zeros(3, bool), np.zeros(3, bool))
    assert "inductive" not in ranked(np.eye(3), nobody).as_dict()
