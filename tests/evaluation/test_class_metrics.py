import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disttgl_hpc.evaluation.metrics import average_precision, class_metrics, roc_auc


def f1_of(truth, told):
    """F1 of one class, by counting; 0 of 0 is 0."""
    hits = sum(t and g for t, g in zip(truth, told, strict=True))
    return 2 * hits / max(1, sum(truth) + sum(told))


def expected(truth, told):
    """(accuracy, micro, macro) of rows of 0 and 1, class by class and event by event."""
    by_class = list(zip(np.transpose(truth).tolist(), np.transpose(told).tolist(), strict=True))
    occurring = [f1_of(*one) for one in by_class if any(one[0]) or any(one[1])]
    flat = [value for row in truth for value in row], [value for row in told for value in row]
    macro = sum(occurring) / len(occurring) if occurring else 0.0
    return sum(t == g for t, g in zip(truth, told, strict=True)) / len(truth), f1_of(*flat), macro


@st.composite
def problems(draw):
    num_events, num_classes = draw(st.integers(1, 20)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng, rng.integers(-2, 3, (num_events, num_classes)) / 2


@given(problems())
@settings(max_examples=50, deadline=None)
def test_one_class_an_event_is_counted_as_by_hand(problem):
    rng, scores = problem
    num_events, num_classes = scores.shape
    truth = rng.integers(0, rng.integers(1, num_classes + 1), num_events)  # the last classes may never occur
    told = [max(range(num_classes), key=lambda c, row=row: (row[c], -c)) for row in scores.tolist()]
    one_hot = [np.eye(num_classes, dtype=int)[list(classes)].tolist() for classes in (truth, told)]
    found = class_metrics(truth, scores)
    assert (found.accuracy, found.f1_micro, found.f1_macro) == pytest.approx(expected(*one_hot))
    assert found.f1_micro == pytest.approx(found.accuracy)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_several_classes_an_event_are_counted_as_by_hand(problem):
    rng, scores = problem
    truth = rng.integers(0, 2, scores.shape).astype(np.uint8)
    found = class_metrics(truth, scores)
    wanted = expected(truth.tolist(), (scores > 0).astype(int).tolist())
    assert (found.accuracy, found.f1_micro, found.f1_macro) == pytest.approx(wanted)
    assert found.roc_auc is None


def test_two_classes_are_ranked_by_the_margin_of_their_scores():
    truth, scores = np.array([0, 1, 1, 0]), np.array([[0.0, 1.0], [0.0, 2.0], [3.0, 3.5], [5.0, 5.2]])
    found = class_metrics(truth, scores)
    margin = scores[:, 1] - scores[:, 0]
    assert found.roc_auc == roc_auc(margin[truth == 1], margin[truth == 0]) == 0.75
    assert found.average_precision == average_precision(margin[truth == 1], margin[truth == 0])
    assert found.score == found.roc_auc


def test_a_split_without_the_rare_class_has_no_ranking():
    found = class_metrics(np.zeros(3, np.int64), np.array([[1.0, 0.0]] * 3))
    assert found.as_dict() == {"accuracy": 1.0, "f1_micro": 1.0, "f1_macro": 1.0, "num_events": 3}
    assert found.score == found.f1_micro


def test_pitfall_22_nothing_told_and_nothing_there_is_no_success():
    found = class_metrics(np.zeros((3, 2), np.uint8), np.full((3, 2), -1.0))
    assert (found.accuracy, found.f1_micro, found.f1_macro) == (1.0, 0.0, 0.0)


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="lower the learning rate"):
        class_metrics(np.array([0]), np.array([[0.0, np.nan]]))


def test_events_of_unknown_class_do_not_count():
    truth, scores = np.array([-1, 1, 0, -1]), np.array([[9.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 9.0]])
    assert class_metrics(truth, scores) == class_metrics(truth[1:3], scores[1:3])
    nothing = class_metrics(np.array([-1]), np.zeros((1, 2)))
    assert (nothing.num_events, nothing.accuracy, nothing.f1_macro, nothing.roc_auc) == (0, 0, 0, None)
