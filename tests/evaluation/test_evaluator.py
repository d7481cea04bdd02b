"""Evaluation: same numbers for any team, nothing of training touched, no look into the future."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from emulation import emulate, emulate_evaluation
from evaluation_team import evaluator_of, memory_of, run_team
from run_helpers import SMALL, make_store

from disttgl_hpc.config import TrainConfig
from disttgl_hpc.evaluation import evaluator as evaluation
from disttgl_hpc.evaluation import evaluator as walk
from disttgl_hpc.evaluation import metrics
from disttgl_hpc.evaluation.candidates import Candidates, held_out_parts
from disttgl_hpc.evaluation.heuristics import last_meetings
from disttgl_hpc.evaluation.metrics import link_metrics
from disttgl_hpc.events.tcsr import build_tcsr
from disttgl_hpc.grid.schedule import GridShape
from disttgl_hpc.model.input_builder import build_model
from disttgl_hpc.planning.run_plan import batching_of


@pytest.fixture
def stream(tmp_path):
    return make_store(tmp_path, num_events=400, dim_edge=2).stream


@pytest.mark.parametrize(("size", "node_size"), [(2, 2), (3, 3), (3, 1), (4, 2)])
def test_pitfall_19_numbers_do_not_depend_on_who_shares_the_work(stream, monkeypatch, size, node_size):
    monkeypatch.setattr(evaluation, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(walk, "NODES_AT_ONCE", 2)
    (alone,), (state,) = run_team(stream, 1, 1)
    monkeypatch.setattr(evaluation, "NUMBERS_AT_ONCE", 300)  # several pieces, each of several batches
    results, states = run_team(stream, size, node_size)
    assert results == [alone] * size
    assert all((other == state).all() for other in states)


def test_pitfall_20_later_events_do_not_change_earlier_scores(stream):
    """Validation numbers stay when the test events are replaced."""
    evaluator = evaluator_of(stream)
    validation, test = held_out_parts(stream, evaluator.config)
    model = build_model(stream, evaluator.config)
    before = evaluator.evaluate(model, memory_of(stream), validation)
    changed = stream.dst.copy()
    changed[test.first :] = (changed[test.first :] + 1) % stream.num_nodes
    other = changed_stream(stream, changed)
    after = evaluator_of(other).evaluate(model, memory_of(stream), validation)
    assert before == after


def changed_stream(stream, dst):
    """The stream with other destinations."""
    return replace(stream, dst=dst, tcsr=build_tcsr(stream.src, dst, stream.time, stream.num_nodes))


def scores_of(monkeypatch, evaluator, model, state, part):
    """What ``evaluate`` ranks: (n, 1 + negatives)."""
    seen = []

    def keep(positive, negatives, counted):
        seen.append(np.concatenate([positive[:, None], negatives], axis=1))
        return link_metrics(positive, negatives, counted)

    monkeypatch.setattr(metrics, "link_metrics", keep)
    evaluator.evaluate(model, state, part)
    return seen[0]  # of all events, then of those with new nodes


@pytest.mark.parametrize("options", [{}, {"pair_features": True, "comb": "mean"}])
def test_pitfall_20_scores_are_those_of_stored_mail_event_by_event(stream, monkeypatch, options):
    """From training through validation to test: weights, memory and mail of one run, and no answer seen early."""
    evaluator = evaluator_of(stream, dropout=0.0, **options)
    config = evaluator.config
    num_batches = batching_of(stream, config, GridShape(1, 1, 1)).num_batches
    _, model, (replica,) = emulate(stream, config, GridShape(1, 1, 1), num_batches)
    state = replica.state.copy()
    for part in held_out_parts(stream, config):
        scores = scores_of(monkeypatch, evaluator, model, state, part)
        expected = emulate_evaluation(stream, config, model, replica, part)
        assert np.allclose(scores, expected, atol=1e-5)
        assert np.allclose(state, replica.state, atol=1e-5)


def test_pitfall_23_candidates_are_treated_alike(stream, monkeypatch):
    """Another candidate in a column changes that column's scores only."""
    evaluator, part = evaluator_of(stream), held_out_parts(stream, evaluator_of(stream).config)[0]
    model = build_model(stream, evaluator.config)
    plain = scores_of(monkeypatch, evaluator, model, memory_of(stream), part)
    drawn = Candidates.of
    monkeypatch.setattr(Candidates, "of", lambda self, *bounds: drawn(self, *bounds)[:, ::-1])
    turned = scores_of(monkeypatch, evaluator_of(stream), model, memory_of(stream), part)
    assert np.allclose(plain, turned[:, ::-1], atol=1e-5)


def test_pitfall_18_a_model_that_cannot_tell_gets_mid_rank(stream):
    evaluator = evaluator_of(stream)
    model = build_model(stream, evaluator.config)
    torch.nn.init.zeros_(model.link_head.out.weight)
    metrics = evaluator.evaluate(model, memory_of(stream), held_out_parts(stream, evaluator.config)[0])
    negatives = evaluator.config.evaluation_negatives
    assert metrics.links.mrr == pytest.approx(1 / (1 + negatives / 2))


def test_limiting_the_scored_events_changes_neither_memory_nor_their_scores(stream):
    whole, limited = evaluator_of(stream), evaluator_of(stream, evaluation_events=30)
    model = build_model(stream, whole.config)
    states = [memory_of(stream) for _ in range(2)]
    whole.evaluate(model, states[0], held_out_parts(stream, whole.config)[0])
    part = held_out_parts(stream, limited.config)[0]
    assert limited.evaluate(model, states[1], part).links.num_events == 30
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


@pytest.mark.parametrize("strategy", ["historical", "inductive"])
def test_an_evaluation_strategy_draws_its_candidates(stream, strategy):
    """The strategy of training does not change the candidates; that of evaluation brings pairs that have met."""
    config = TrainConfig(**SMALL)
    drawn = {
        name: Candidates(stream, replace(config, **{name: strategy})).of(340, 400)
        for name in ("negative_strategy", "evaluation_strategy")
    }
    plain = Candidates(stream, config).of(340, 400)
    assert (drawn["negative_strategy"] == plain).all()
    meetings = {
        name: (last_meetings(stream, 340, 400, candidates)[:, 1:] >= 0).sum()
        for name, candidates in drawn.items()
    }
    assert meetings["evaluation_strategy"] > meetings["negative_strategy"]
