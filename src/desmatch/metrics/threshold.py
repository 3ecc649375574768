"""Where to cut scores into yes and no, and how good that is on rows the cut was not found on.

Shapes: B rows (pairs), T distinct scores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from sklearn import metrics

from desmatch.metrics.cross_fit import cross_fit
from desmatch.metrics.roc import check_labels

if TYPE_CHECKING:
    from collections.abc import Callable

Figure = Literal["accuracy", "f1"]

FIGURES: dict[Figure, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": metrics.accuracy_score,
    "f1": lambda labels, decisions: metrics.f1_score(labels, decisions, zero_division=0),
}
"""Figures of labels (B,) and decisions (B,), both 0 or 1."""


class Decision(NamedTuple):
    """A threshold and what it is worth."""

    value: float
    """The figure, each row decided by a threshold that was found on other rows."""
    threshold: float
    """Found on all rows: a score at or above it is a yes."""


def best_threshold(labels: np.ndarray, scores: np.ndarray, figure: Figure) -> float:
    """Return the threshold with the best figure; the highest of equals.

    It lies midway between two neighbouring scores, is the lowest one, or just above the highest.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float; a score at or above the threshold is a yes.
        figure: What is best.

    Raises:
        ValueError: A class is missing or a score is not finite.
    """
    check_labels(labels, scores)
    false_rate, true_rate, cuts = metrics.roc_curve(labels, scores, drop_intermediate=False)
    num_positives = np.count_nonzero(labels)
    hits = true_rate * num_positives  # (T + 1,), the first cut says no to all
    false_alarms = false_rate * (len(labels) - num_positives)
    match figure:
        case "accuracy":
            gain = hits - false_alarms
        case "f1":
            gain = 2 * hits / (hits + false_alarms + num_positives)
    best = int(np.argmax(np.round(gain, 12)))  # equals must not be told apart by rounding
    if best == 0:
        return float(np.nextafter(cuts[1], np.inf))
    cut, below = cuts[best], cuts[best + 1] if best + 1 < len(cuts) else -np.inf
    midway = (cut + below) / 2
    return float(midway if below < midway else cut)  # no float lies between, or nothing is below


def cross_fitted_decision(
    labels: np.ndarray, scores: np.ndarray, parts: np.ndarray, figure: Figure
) -> Decision:
    """Return a figure whose thresholds were found on the other parts than they decide.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float.
        parts: (B,), int, two or more; the others of each show both labels.
        figure: What the threshold is best for.

    Raises:
        ValueError: As `best_threshold` and `cross_fit`.
    """

    def decide(there: np.ndarray, here: np.ndarray) -> np.ndarray:
        decisions: np.ndarray = scores[here] >= best_threshold(labels[there], scores[there], figure)
        return decisions

    decisions = cross_fit(parts, decide).astype(np.int64)
    value = float(FIGURES[figure](labels, decisions))
    return Decision(value, best_threshold(labels, scores, figure))
