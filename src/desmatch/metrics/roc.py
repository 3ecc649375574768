"""The area under the ROC curve, which the contest ranks by, and the curve itself.

Shapes: B rows (pairs), P points of a curve.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn import metrics


class RocCurve(NamedTuple):
    """The corners of a ROC curve, from (0, 0) to (1, 1)."""

    false_positive_rate: np.ndarray
    """(P,), float, share of the negative rows at or above a threshold, ascending."""
    true_positive_rate: np.ndarray
    """(P,), float, share of the positive rows at or above that threshold, ascending."""


def roc_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return the chance that a positive row scores above a negative one; a tie counts half.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float; only their order matters.
        weights: (B,), float, what each row counts for; none: all the same.

    Raises:
        ValueError: A class is missing, a label is neither 0 nor 1, or a score is not finite.
    """
    check_labels(labels, scores)
    return float(metrics.roc_auc_score(labels, scores, sample_weight=weights))


def pr_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the average precision, the area under the precision-recall curve by steps.

    Where positives are rare it says more than the ROC AUC; a random order gives their share.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float; only their order matters.

    Raises:
        ValueError: As `roc_auc`.
    """
    check_labels(labels, scores)
    return float(metrics.average_precision_score(labels, scores))


def roc_curve(labels: np.ndarray, scores: np.ndarray, *, max_points: int = 200) -> RocCurve:
    """Return the ROC curve, thinned to at most `max_points` corners for a plot.

    The kept corners lie at about equal steps along the curve, so steep and flat parts keep
    their form; the two ends always stay.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float.
        max_points: Largest number of corners, 2 or more.

    Raises:
        ValueError: As `roc_auc`.
    """
    check_labels(labels, scores)
    false_rate, true_rate, _ = metrics.roc_curve(labels, scores)
    along = false_rate + true_rate  # 0 to 2, ascending: both rates only grow
    kept = np.unique(np.searchsorted(along, np.linspace(0, along[-1], max_points)))
    return RocCurve(false_rate[kept], true_rate[kept])


def check_labels(labels: np.ndarray, scores: np.ndarray) -> None:
    """Refuse rows no AUC is defined for.

    Args:
        labels: (B,), 0 or 1, both present.
        scores: (B,), finite.

    Raises:
        ValueError: Shapes differ, a class is missing, or a value is out of range.
    """
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"expected two (B,) arrays, got {labels.shape} and {scores.shape}")
    classes = np.unique(labels).tolist()
    if classes != [0, 1]:
        raise ValueError(f"an AUC needs labels 0 and 1, got the classes {classes[:5]}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} scores are not finite")
