import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from desmatch.metrics.threshold import FIGURES, best_threshold, cross_fitted_decision

SLOW = {"accuracy": accuracy_score, "f1": f1_score}


@st.composite
def scored_rows(draw, least=2):
    size = draw(st.integers(least, 25))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    scores = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size))
    labels[:4] = [0, 1, 0, 1][: len(labels)]
    return np.array(labels), np.array(scores) / 6


@pytest.mark.parametrize("figure", FIGURES)
@given(rows=scored_rows())
def test_no_threshold_is_better(figure, rows):
    labels, scores = rows
    found = best_threshold(labels, scores, figure)
    candidates = [SLOW[figure](labels, scores >= cut) for cut in [*scores, 2.0]]
    assert SLOW[figure](labels, scores >= found) == pytest.approx(max(candidates))
    assert np.isfinite(found)


def test_the_cut_lies_midway():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.3, 0.7, 0.9])
    assert best_threshold(labels, scores, "accuracy") == pytest.approx(0.5)
    assert best_threshold(labels, scores, "f1") == pytest.approx(0.5)


def test_neighbouring_floats_are_told_apart():
    low = 0.5
    high = np.nextafter(low, 1)
    for pair in ((low, high), (np.nextafter(low, 0), low)):
        scores = np.array(pair)
        assert (scores >= best_threshold(np.array([0, 1]), scores, "f1")).tolist() == [False, True]


@pytest.mark.parametrize("figure", FIGURES)
def test_the_figure_is_of_rows_the_threshold_was_not_found_on(figure):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    scores = labels + rng.normal(size=200)
    parts = np.arange(200) % 2
    found = cross_fitted_decision(labels, scores, parts, figure)
    cuts = [best_threshold(labels[parts == 1 - p], scores[parts == 1 - p], figure) for p in (0, 1)]
    decisions = scores >= np.array(cuts)[parts]
    assert found.value == pytest.approx(SLOW[figure](labels, decisions))
    assert found.threshold == best_threshold(labels, scores, figure)


def test_scores_without_meaning_gain_nothing_by_their_threshold():
    values = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        labels, scores, parts = np.arange(40) % 2, rng.random(40), rng.permutation(40) // 20
        values.append(cross_fitted_decision(labels, scores, parts, "accuracy").value)
    assert np.mean(values) < 0.52  # found on the rows it is judged on it would be about 0.6
