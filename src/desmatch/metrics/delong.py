"""The variance of an AUC, and of the difference of two on the same rows, in closed form.

An AUC is a mean over (positive, negative) pairs of rows. Averaged over the negatives it is a mean
over positive rows of their placements V, averaged over the positives one over negative rows of
theirs; DeLong, DeLong & Clarke-Pearson 1988 take the variance from both:

    var(AUC) = var(V of positives) / P + var(V of negatives) / N

and the covariance of two AUCs likewise. Placements come from three rankings (Sun & Xu 2014, 'Fast
Implementation of DeLong's Algorithm'), ties by their mean rank. Rows are taken for independent:
where rows share texts, the bootstrap over components in `intervals` is the honest one.

Shapes: B rows (pairs), P positive and N negative rows, M models.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

from desmatch.metrics.intervals import Interval
from desmatch.metrics.roc import check_labels


class DelongTest(NamedTuple):
    """Whether a second model's AUC differs from a first one's on the same rows."""

    difference: float
    """AUC of the second less that of the first."""
    standard_error: float
    """Of the difference."""
    p_value: float
    """Two-sided, of no difference."""
    interval: Interval
    """Of the difference."""


def delong_interval(labels: np.ndarray, scores: np.ndarray, *, level: float = 0.95) -> Interval:
    """Return the interval of the AUC if rows are independent, cut to [0, 1].

    Args:
        labels: (B,), int, 0 or 1, at least two of each.
        scores: (B,), float; only their order matters.
        level: Share of such intervals that hold the truth, in (0, 1).

    Raises:
        ValueError: A class has fewer than two rows, or an argument is out of range.
    """
    aucs, covariance = delong_covariance(labels, scores[None])
    low, high = _around(float(aucs[0]), float(np.sqrt(covariance[0, 0])), level)
    return Interval(max(low, 0.0), min(high, 1.0))


def delong_test(
    labels: np.ndarray, first: np.ndarray, second: np.ndarray, *, level: float = 0.95
) -> DelongTest:
    """Test two models' scores of the same rows for a difference of their AUCs.

    Scores that order the rows alike differ by nothing, with p = 1.

    Args:
        labels: (B,), int, 0 or 1, at least two of each.
        first: (B,), float, a model's scores.
        second: (B,), float, another model's.
        level: Share of such intervals that hold the truth, in (0, 1).

    Raises:
        ValueError: As `delong_interval`.
    """
    aucs, covariance = delong_covariance(labels, np.stack([first, second]))
    difference = float(aucs[1] - aucs[0])
    contrast = np.array([-1.0, 1.0])
    error = float(np.sqrt(max(contrast @ covariance @ contrast, 0.0)))
    if error > 0:
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        p_value = float(difference == 0)
    return DelongTest(difference, error, p_value, _around(difference, error, level))


def delong_covariance(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUCs (M,) of several models on the same rows, and their covariance (M, M).

    Args:
        labels: (B,), int, 0 or 1, at least two of each.
        scores: (M, B), float.

    Raises:
        ValueError: A class has fewer than two rows, or a score is not finite.
    """
    for each in scores:
        check_labels(labels, each)
    is_positive = labels == 1
    sizes = int(is_positive.sum()), int((~is_positive).sum())
    if min(sizes) < 2:
        raise ValueError(f"expected two rows or more of each class, got {sizes[0]} positive and "
                         f"{sizes[1]} negative")  # fmt: skip
    positives, negatives = scores[:, is_positive], scores[:, ~is_positive]
    rank = stats.rankdata(scores, axis=1)  # (M, B)
    negatives_below = rank[:, is_positive] - stats.rankdata(positives, axis=1)  # (M, P)
    positives_below = rank[:, ~is_positive] - stats.rankdata(negatives, axis=1)  # (M, N)
    of_positives = negatives_below / sizes[1]
    of_negatives = 1 - positives_below / sizes[0]
    covariance = np.cov(of_positives) / sizes[0] + np.cov(of_negatives) / sizes[1]
    return of_positives.mean(axis=1), np.atleast_2d(covariance)


def _around(value: float, error: float, level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    reach = float(stats.norm.ppf((1 + level) / 2)) * error
    return Interval(value - reach, value + reach)
