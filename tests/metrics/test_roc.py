import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from desmatch.metrics.roc import pr_auc, roc_auc, roc_curve


def u_statistic(labels, scores):
    """The definition: the share of (positive, negative) pairs in order, ties counted half."""
    gap = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float(((gap > 0) + 0.5 * (gap == 0)).mean())


@st.composite
def scored_rows(draw):
    size = draw(st.integers(2, 40))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(-5, 5), min_size=size, max_size=size))  # many ties
    labels[:2] = [0, 1]
    return np.array(labels), np.array(scores, dtype=float)


@given(scored_rows())
def test_auc_is_the_share_of_ordered_pairs(rows):
    labels, scores = rows
    assert roc_auc(labels, scores) == pytest.approx(u_statistic(labels, scores))


@given(scored_rows())
def test_auc_does_not_see_a_monotone_transform(rows):
    labels, scores = rows
    assert roc_auc(labels, np.exp(scores / 3) + 7) == pytest.approx(roc_auc(labels, scores))


@given(scored_rows())
def test_exchanged_classes_mirror_the_auc(rows):
    labels, scores = rows
    assert roc_auc(1 - labels, scores) == pytest.approx(1 - roc_auc(labels, scores))


@given(scored_rows(), st.integers(2, 300))
def test_a_thinned_curve_climbs_from_corner_to_corner(rows, max_points):
    curve = roc_curve(*rows, max_points=max_points)
    assert len(curve.false_positive_rate) <= max_points
    for rates in curve:
        assert (rates[0], rates[-1]) == (0, 1)
        assert (np.diff(rates) >= 0).all()


def test_a_thinned_curve_keeps_the_area():
    rng = np.random.default_rng(0)
    labels = np.arange(20_000) % 2
    scores = rng.normal(size=20_000) + 2 * labels
    curve = roc_curve(labels, scores, max_points=200)
    assert metrics.auc(*curve) == pytest.approx(roc_auc(labels, scores), abs=2e-3)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "needs labels 0 and 1, got the classes [1]"),
        ([0, 2], [0.1, 0.2], "needs labels 0 and 1, got the classes [0, 2]"),
        ([], [], "got the classes []"),
        ([0, 1], [0.1, np.nan], "1 scores are not finite"),
        ([0, 1], [0.1], "got (2,) and (1,)"),
    ],
)
def test_rows_without_an_auc_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        roc_auc(np.array(labels), np.array(scores))


@given(scored_rows())
def test_pr_auc_is_the_mean_precision_at_each_positive_row(rows):
    labels, scores = rows
    at = [labels[scores >= cut].mean() for cut in scores[labels == 1]]
    assert pr_auc(labels, scores) == pytest.approx(np.mean(at))


def test_pr_auc_needs_both_labels():
    with pytest.raises(ValueError, match="needs labels 0 and 1"):
        pr_auc(np.ones(3, int), np.arange(3.0))
