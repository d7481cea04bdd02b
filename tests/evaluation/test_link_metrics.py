import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.evaluation.metrics import average_precision, link_metrics, mid_ranks, roc_auc

FEW = st.sampled_from([-np.inf, -1.5, 0.0, 0.25, 1.0, 3.0])  # few values: ties everywhere
LISTS = st.lists(FEW | st.floats(-2, 2, width=32), min_size=1, max_size=12)


@st.composite
def scored_events(draw):
    """positive (n,), negatives (n, m)."""
    num_negatives = draw(st.integers(1, 6))
    row = st.lists(FEW, min_size=1 + num_negatives, max_size=1 + num_negatives)
    scores = np.array(draw(st.lists(row, min_size=1, max_size=12)))
    return scores[:, 0], scores[:, 1:]


def stepwise_average_precision(positive, negative):
    """Oracle: the sum over thresholds, written as it is defined."""
    area, recall_before = 0.0, 0.0
    for threshold in sorted({*positive, *negative}, reverse=True):
        hits = sum(score >= threshold for score in positive)
        shown = hits + sum(score >= threshold for score in negative)
        recall = hits / len(positive)
        area += (recall - recall_before) * hits / shown
        recall_before = recall
    return area


@given(scored_events())
@settings(max_examples=50, deadline=None)
def test_mid_ranks_average_the_best_and_the_worst_order_of_ties(scores):
    positive, negatives = scores
    ranks = mid_ranks(positive, negatives)
    for rank, own, others in zip(ranks, positive, negatives, strict=True):
        best = 1 + sum(other > own for other in others)
        worst = 1 + sum(other >= own for other in others)
        assert rank == (best + worst) / 2


@given(LISTS, LISTS)
@settings(max_examples=50, deadline=None)
def test_roc_auc_counts_pairs(positive, negative):
    wins = sum((p > q) + (p == q) / 2 for p in positive for q in negative)
    assert roc_auc(np.array(positive), np.array(negative)) == pytest.approx(
        wins / len(positive) / len(negative)
    )


@given(LISTS, LISTS)
@settings(max_examples=50, deadline=None)
def test_average_precision_is_the_stepwise_sum(positive, negative):
    expected = stepwise_average_precision(positive, negative)
    assert average_precision(np.array(positive), np.array(negative)) == pytest.approx(expected)


@pytest.mark.parametrize("value", [0.0, -np.inf, 7.5])
def test_pitfall_18_a_constant_score_gets_mid_rank(value):
    metrics = link_metrics(np.full(20, value), np.full((20, 49), value))
    assert metrics.mrr == pytest.approx(1 / 25.5)
    assert metrics.hits_at_10 == 0
    assert metrics.roc_auc == 0.5
    assert metrics.average_precision == pytest.approx(1 / 50)


@given(scored_events(), st.integers(1, 12), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_pitfall_19_metrics_are_of_the_split_not_of_its_batches(scores, batch, random):
    positive, negatives = scores
    begins = range(0, len(positive), batch)
    parts = [(positive[b : b + batch].copy(), negatives[b : b + batch].copy()) for b in begins]
    together = link_metrics(np.concatenate([p for p, _ in parts]), np.concatenate([n for _, n in parts]))
    whole = link_metrics(positive, negatives)
    assert together == whole
    order = random.sample(range(len(positive)), len(positive))
    shuffled = link_metrics(positive[order], negatives[order])
    assert shuffled.average_precision == whole.average_precision
    assert shuffled.roc_auc == whole.roc_auc


def test_pitfall_19_average_precision_is_no_mean_of_batches():
    positive, negatives = np.array([3.0, 1.0]), np.array([[2.0], [0.0]])
    assert link_metrics(positive[:1], negatives[:1]).average_precision == 1
    assert link_metrics(positive[1:], negatives[1:]).average_precision == 1
    assert link_metrics(positive, negatives).average_precision == pytest.approx((1 + 2 / 3) / 2)


def test_a_perfect_score_is_one_everywhere():
    metrics = link_metrics(np.ones(5, np.float32), np.zeros((5, 49), np.float32))
    assert metrics.as_dict() == {
        "mrr": 1.0,
        "hits_at_10": 1.0,
        "average_precision": 1.0,
        "roc_auc": 1.0,
        "num_events": 5,
    }


def test_hits_count_rank_ten_and_not_the_next():
    negatives = np.arange(49.0)[None].repeat(2, axis=0)
    metrics = link_metrics(np.array([39.5, 38.5]), negatives)
    assert metrics.hits_at_10 == 0.5
    assert metrics.mrr == pytest.approx((1 / 10 + 1 / 11) / 2)


@pytest.mark.parametrize("where", ["positive", "negatives"])
def test_nan_scores_are_refused(where):
    positive, negatives = np.zeros(3), np.zeros((3, 4))
    {"positive": positive, "negatives": negatives}[where][1] = np.nan
    for metric in (mid_ranks, link_metrics):
        with pytest.raises(ValueError, match="NaN"):
            metric(positive, negatives)
    for pooled_metric in (roc_auc, average_precision):
        with pytest.raises(ValueError, match="NaN"):
            pooled_metric(positive, negatives.reshape(-1))
