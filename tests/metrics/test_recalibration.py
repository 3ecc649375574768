import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss, roc_auc_score

from desmatch.metrics.recalibration import (
    calibration_figures,
    fit_isotonic,
    fit_temperature,
    logits_of,
)


def overconfident(size, *, factor=3.0, seed=0):
    """Rows whose logits are `factor` times what they should be."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, size)
    return (rng.random(size) < expit(logits)).astype(int), factor * logits


class GivenLogits(ClassifierMixin, BaseEstimator):
    """A classifier whose one feature is its logit."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, _features, _labels):
        return self

    def predict(self, features):
        return (features[:, 0] > 0).astype(int)

    def decision_function(self, features):
        return features[:, 0]


def test_temperature_equals_scikit_learns():
    labels, logits = overconfident(500)
    fitted = CalibratedClassifierCV(FrozenEstimator(GivenLogits()), method="temperature")
    theirs = fitted.fit(logits[:, None], labels).predict_proba(logits[:, None])[:, 1]
    ours = expit(logits / fit_temperature(labels, logits))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)
    assert log_loss(labels, ours) <= log_loss(labels, theirs) + 1e-9


def test_temperature_finds_the_factor():
    assert fit_temperature(*overconfident(40_000)) == pytest.approx(3, rel=0.05)


@given(st.floats(0.2, 5))
def test_no_other_temperature_has_a_lower_loss(other):
    labels, logits = overconfident(200)
    best = fit_temperature(labels, logits)
    loss, its = (log_loss(labels, expit(logits / each)) for each in (best, other))
    assert loss <= its + 1e-9


def test_isotonic_rises_and_stays_inside():
    labels, logits = overconfident(300)
    probs = fit_isotonic(labels, logits)(np.linspace(-50, 50, 1000))
    assert (np.diff(probs) >= 0).all()
    assert probs.min() >= 1 / 302
    assert probs.max() <= 1 - 1 / 302


def test_calibration_mends_the_loss_and_leaves_the_auc():
    labels, logits = overconfident(4000)
    scores = expit(logits)
    figures = calibration_figures(labels, scores, np.arange(4000) % 5)
    plain, temperature, isotonic = (figures[name] for name in ("none", "temperature", "isotonic"))
    assert temperature["log_loss"] < plain["log_loss"] - 0.05
    assert isotonic["log_loss"] < plain["log_loss"] - 0.05
    assert temperature["calibration_error"] < plain["calibration_error"] / 2
    assert temperature["auc"] == pytest.approx(plain["auc"], abs=1e-3)
    assert temperature["temperature"] == pytest.approx(3, rel=0.1)
    kept = expit(logits / temperature["temperature"])
    assert roc_auc_score(labels, kept) == plain["auc"]


def test_what_is_fitted_does_not_see_the_rows_it_is_judged_on():
    labels, logits = overconfident(60, seed=1)
    parts = np.arange(60) % 2
    figures = calibration_figures(labels, expit(logits), parts)
    judged = np.empty(60)
    for part in (0, 1):
        other = parts != part
        judged[~other] = fit_isotonic(labels[other], logits[other])(logits[~other])
    assert figures["isotonic"]["log_loss"] == pytest.approx(log_loss(labels, judged))


def test_logits_undo_the_sigmoid_and_stay_finite():
    probs = np.array([0, 1e-9, 0.3, 1 - 1e-9, 1])
    np.testing.assert_allclose(logits_of(probs)[1:-1], logit(probs[1:-1]))
    assert np.isfinite(logits_of(probs)).all()
