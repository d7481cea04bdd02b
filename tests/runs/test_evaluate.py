"""Evaluation: same numbers for any team, nothing of training touched, no look into the future."""

import threading

import numpy as np
import pytest
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.core.metrics import link_metrics
from disttgl_hpc.core.schedule import GridShape
from disttgl_hpc.runs import evaluate as evaluation
from disttgl_hpc.runs.batches import batching_of
from disttgl_hpc.runs.evaluate import Candidates, Evaluator, Team, held_out_parts
from disttgl_hpc.runs.inputs import build_model


@pytest.fixture
def stream(tmp_path):
    return make_store(tmp_path, num_events=400, dim_edge=2).stream


def evaluator_of(stream, team=None, **settings):
    config = TrainConfig(**{**SMALL, **settings})
    return Evaluator(stream, config, batching_of(stream, config, GridShape(1, 1, 1)), team)


def memory_of(stream):
    """Any memory, as if a sweep had left it."""
    size = (stream.num_nodes, 2 * SMALL["dim_memory"])
    return np.random.default_rng(1).normal(size=size).astype(np.float32)


def run_team(stream, size, node_size):
    """Evaluate both parts with ``size`` members, ``node_size`` of which share a memory; → results by member."""
    gathered, meet = [None] * size, threading.Barrier(size)
    states = [memory_of(stream) for _ in range(size // node_size)]
    results = [None] * size

    def member(index):
        def gather(own):
            gathered[index] = own
            meet.wait()
            everything = list(gathered)
            meet.wait()
            return everything

        team = Team(index, size, index % node_size, node_size, lambda: meet.wait() and None, gather)
        evaluator, state = evaluator_of(stream, team), states[index // node_size]
        model = build_model(stream, evaluator.config)
        parts = held_out_parts(stream, evaluator.config)
        results[index] = [evaluator.evaluate(model, state, part) for part in parts]

    threads = [threading.Thread(target=member, args=(index,)) for index in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, states


@pytest.mark.parametrize(("size", "node_size"), [(2, 2), (3, 3), (3, 1), (4, 2)])
def test_pitfall_19_numbers_do_not_depend_on_who_shares_the_work(stream, monkeypatch, size, node_size):
    monkeypatch.setattr(evaluation, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(evaluation, "NODES_AT_ONCE", 2)
    (alone,), (state,) = run_team(stream, 1, 1)
    results, states = run_team(stream, size, node_size)
    assert results == [alone] * size
    assert all((other == state).all() for other in states)


def test_pitfall_20_later_events_do_not_change_earlier_scores(stream):
    """Validation numbers stay when the test events are replaced."""
    evaluator = evaluator_of(stream)
    validation, test = held_out_parts(stream, evaluator.config)
    model = build_model(stream, evaluator.config)
    before = evaluator.evaluate(model, memory_of(stream), validation)
    stream.dst.flags.writeable = False
    changed = stream.dst.copy()
    changed[test.first :] = (changed[test.first :] + 1) % stream.num_nodes
    other = changed_stream(stream, changed)
    after = evaluator_of(other).evaluate(model, memory_of(stream), validation)
    assert before == after


def changed_stream(stream, dst):
    from dataclasses import replace

    from disttgl_hpc.core.tcsr import build_tcsr

    return replace(stream, dst=dst, tcsr=build_tcsr(stream.src, dst, stream.time, stream.num_nodes))


def test_limiting_the_scored_events_changes_neither_memory_nor_their_scores(stream):
    whole, limited = evaluator_of(stream), evaluator_of(stream, evaluation_events=30)
    model = build_model(stream, whole.config)
    states = [memory_of(stream) for _ in range(2)]
    whole.evaluate(model, states[0], held_out_parts(stream, whole.config)[0])
    part = held_out_parts(stream, limited.config)[0]
    assert limited.evaluate(model, states[1], part).num_events == 30
    assert (states[0] == states[1]).all()


def test_pitfall_23_candidates_are_the_true_destination_then_fixed_negatives(stream):
    config = TrainConfig(**SMALL)
    candidates = Candidates(stream, config)
    whole = candidates.of(300, 340)
    assert (whole[:, 0] == stream.dst[300:340]).all()
    assert (whole[:, 1:] != whole[:, :1]).all()
    assert (np.concatenate([candidates.of(300, 311), candidates.of(311, 340)]) == whole).all()
    assert (Candidates(stream, TrainConfig(**SMALL, seed=9)).of(300, 340) == whole).all()
    assert (Candidates(stream, TrainConfig(**SMALL, evaluation_seed=9)).of(300, 340) != whole).any()


def test_pitfall_18_a_model_that_cannot_tell_gets_mid_rank():
    metrics = link_metrics(np.zeros(5), np.zeros((5, 49)))
    assert metrics.mrr == pytest.approx(1 / 25.5)
