"""Logits to probabilities that can be believed: one temperature, or any rising curve.

A temperature keeps the order of the rows, so their AUC; a rising curve ties some. Both are fitted
on other rows than they are judged on. Guo et al. 2017, 'On Calibration of Modern Neural Networks';
Zadrozny & Elkan 2002, 'Transforming classifier scores into accurate multiclass probability
estimates'.

Shapes: B rows (pairs).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from desmatch.metrics.calibration import brier_score_loss, expected_calibration_error, log_loss
from desmatch.metrics.cross_fit import cross_fit
from desmatch.metrics.roc import check_labels, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_LOG_TEMPERATURE = 5.0
"""Temperatures lie between exp(-5) and exp(5): 0.007 to 148."""


def logits_of(scores: np.ndarray) -> np.ndarray:
    """Return (B,), ln(p / (1 - p)); 0 and 1 are moved inside by the float's resolution.

    Args:
        scores: (B,), float, probabilities in [0, 1].
    """
    tiny = np.finfo(np.float64).eps
    logits: np.ndarray = logit(np.clip(scores.astype(np.float64), tiny, 1 - tiny))
    return logits


def fit_temperature(labels: np.ndarray, logits: np.ndarray) -> float:
    """Return the T > 0 for which sigmoid(logit / T) has the lowest log loss.

    Args:
        labels: (B,), int, 0 or 1, both present.
        logits: (B,), float, finite.

    Raises:
        ValueError: A class is missing or a logit is not finite.
    """
    check_labels(labels, logits)
    signed = np.where(labels == 1, -logits, logits)  # (B,), what the loss of a row rises with

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, signed * np.exp(-log_temperature)).mean())

    bounds = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def fit_isotonic(labels: np.ndarray, logits: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the rising curve from logits to probabilities with the least squared error.

    It stays 1 / (B + 2) away from 0 and 1: B rows do not show a share closer than that (Laplace).

    Args:
        labels: (B,), int, 0 or 1, both present.
        logits: (B,), float, finite.

    Raises:
        ValueError: A class is missing or a logit is not finite.
    """
    check_labels(labels, logits)
    least = 1 / (len(labels) + 2)
    curve = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip")
    predict: Callable[[np.ndarray], np.ndarray] = curve.fit(logits, labels).predict
    return predict


def calibration_figures(
    labels: np.ndarray, scores: np.ndarray, parts: np.ndarray
) -> dict[str, dict[str, Any]]:
    """Return what each way to calibrate does, fitted on the other parts than it is judged on.

    The temperature that is named is fitted on all rows: dividing all logits by it leaves the AUC as
    it is. Judged part by part, each part has a temperature of its own, so the AUC over all parts
    may move in the last digits.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float, probabilities in [0, 1].
        parts: (B,), int, two or more; the others of each show both labels.

    Raises:
        ValueError: As `fit_temperature` and `cross_fit`.
    """
    logits = logits_of(scores)

    def by_temperature(there: np.ndarray, here: np.ndarray) -> np.ndarray:
        scaled: np.ndarray = expit(logits[here] / fit_temperature(labels[there], logits[there]))
        return scaled

    def by_isotonic(there: np.ndarray, here: np.ndarray) -> np.ndarray:
        return fit_isotonic(labels[there], logits[there])(logits[here])

    temperature = {
        **probability_figures(labels, cross_fit(parts, by_temperature)),
        "temperature": fit_temperature(labels, logits),
    }
    return {
        "none": probability_figures(labels, scores),
        "temperature": temperature,
        "isotonic": probability_figures(labels, cross_fit(parts, by_isotonic)),
    }


def probability_figures(labels: np.ndarray, probs: np.ndarray) -> dict[str, float]:
    """Return AUC, log loss, Brier score and expected calibration error.

    Args:
        labels: (B,), int, 0 or 1, both present.
        probs: (B,), float, in [0, 1].

    Raises:
        ValueError: A class is missing, or a probability lies outside [0, 1].
    """
    return {
        "auc": roc_auc(labels, probs),
        "log_loss": log_loss(labels, probs),
        "brier": brier_score_loss(labels, probs),
        "calibration_error": expected_calibration_error(labels, probs),
    }
