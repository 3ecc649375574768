import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.metrics.calibration import (
    brier_score_loss,
    expected_calibration_error,
    log_loss,
    reliability_bins,
)


@st.composite
def probable_rows(draw):
    probs = draw(st.lists(st.floats(0, 1), min_size=1, max_size=50))
    labels = draw(st.lists(st.integers(0, 1), min_size=len(probs), max_size=len(probs)))
    return np.array(labels), np.array(probs)


def slow_ece(labels, probs, num_bins):
    total = 0.0
    for index in range(num_bins):
        inside = [
            (label, prob)
            for label, prob in zip(labels, probs, strict=True)
            if min(int(prob * num_bins), num_bins - 1) == index
        ]
        if inside:
            gap = sum(label for label, _ in inside) - sum(prob for _, prob in inside)
            total += abs(gap)
    return total / len(labels)


@given(probable_rows(), st.integers(1, 20))
def test_ece_equals_a_loop_over_the_bins(rows, num_bins):
    ece = expected_calibration_error(*rows, num_bins=num_bins)
    assert ece == pytest.approx(slow_ece(*rows, num_bins))


@given(probable_rows(), st.integers(1, 20))
def test_bins_hold_each_row_once(rows, num_bins):
    labels, probs = rows
    bins = reliability_bins(labels, probs, num_bins=num_bins)
    assert bins.counts.sum() == len(labels)
    assert (bins.counts > 0).all()
    assert bins.positive_shares @ bins.counts == pytest.approx(labels.sum())
    assert bins.mean_probs @ bins.counts == pytest.approx(probs.sum())


def test_honest_probabilities_are_calibrated():
    rng = np.random.default_rng(0)
    probs = rng.random(100_000)
    labels = (rng.random(100_000) < probs).astype(int)
    assert expected_calibration_error(labels, probs) < 0.01
    assert expected_calibration_error(labels, probs**3) > 0.2


@given(probable_rows())
def test_losses_equal_their_formulas_even_with_one_class(rows):
    labels, probs = rows
    assert brier_score_loss(labels, probs) == pytest.approx(float(((probs - labels) ** 2).mean()))
    tiny = np.finfo(probs.dtype).eps
    of_label = np.clip(np.where(labels == 1, probs, 1 - probs), tiny, 1 - tiny)
    assert log_loss(labels, probs) == pytest.approx(float(-np.log(of_label).mean()), abs=1e-12)


def test_log_loss_of_ignorance_is_ln_2():
    assert log_loss(np.array([0, 1, 1]), np.full(3, 0.5)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("metric", [reliability_bins, log_loss, brier_score_loss])
@pytest.mark.parametrize("prob", [-0.1, 1.5, np.nan])
def test_what_is_no_probability_is_refused(metric, prob):
    with pytest.raises(ValueError, match=r"1 probabilities lie outside \[0, 1\]"):
        metric(np.array([0, 1]), np.array([0.5, prob]))
