"""How far a score can be read as a probability.

Shapes: B rows (pairs), N bins that hold at least one row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn import metrics


class ReliabilityBins(NamedTuple):
    """Rows gathered by their probability, empty bins left out."""

    mean_probs: np.ndarray
    """(N,), float, mean probability of a bin's rows."""
    positive_shares: np.ndarray
    """(N,), float, share of a bin's rows whose label is 1."""
    counts: np.ndarray
    """(N,), int, rows of a bin."""


def reliability_bins(
    labels: np.ndarray, probs: np.ndarray, *, num_bins: int = 15
) -> ReliabilityBins:
    """Gather rows in bins of equal width between 0 and 1.

    A bin holds its lower edge and not its upper one, but for the last, which holds 1.

    Args:
        labels: (B,), int, 0 or 1.
        probs: (B,), float, in [0, 1].
        num_bins: Bins before the empty ones are left out.

    Raises:
        ValueError: A probability lies outside [0, 1], or is NaN.
    """
    _check_probs(probs)
    bins = np.minimum((probs * num_bins).astype(np.int64), num_bins - 1)  # (B,)
    counts = np.bincount(bins, minlength=num_bins)  # (num_bins,)
    filled = counts > 0
    probs_sum = np.bincount(bins, weights=probs, minlength=num_bins)
    positives = np.bincount(bins, weights=labels, minlength=num_bins)
    return ReliabilityBins(
        probs_sum[filled] / counts[filled], positives[filled] / counts[filled], counts[filled]
    )


def expected_calibration_error(
    labels: np.ndarray, probs: np.ndarray, *, num_bins: int = 15
) -> float:
    """Return ECE = sum over bins of (rows / B) * |mean probability - share of positives|.

    Guo et al. 2017, 'On Calibration of Modern Neural Networks', equation 3, for the probability
    of label 1 instead of the confidence in the chosen label.

    Args:
        labels: (B,), int, 0 or 1.
        probs: (B,), float, in [0, 1].
        num_bins: Bins of equal width between 0 and 1.

    Raises:
        ValueError: A probability lies outside [0, 1], or is NaN.
    """
    bins = reliability_bins(labels, probs, num_bins=num_bins)
    return float(np.average(np.abs(bins.mean_probs - bins.positive_shares), weights=bins.counts))


def log_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Return the mean of -ln(probability of the true label), in nats.

    Args:
        labels: (B,), int, 0 or 1.
        probs: (B,), float, in [0, 1]; 0 and 1 are moved inside by the float's resolution.

    Raises:
        ValueError: A probability lies outside [0, 1], or is NaN.
    """
    _check_probs(probs)
    return float(metrics.log_loss(labels, probs, labels=[0, 1]))


def brier_score_loss(labels: np.ndarray, probs: np.ndarray) -> float:
    """Return the mean of (probability - label)^2, between 0 and 1.

    Args:
        labels: (B,), int, 0 or 1.
        probs: (B,), float, in [0, 1].

    Raises:
        ValueError: A probability lies outside [0, 1], or is NaN.
    """
    _check_probs(probs)
    return float(metrics.brier_score_loss(labels, probs, labels=[0, 1], pos_label=1))


def _check_probs(probs: np.ndarray) -> None:
    outside = ~((probs >= 0) & (probs <= 1))  # True for NaN as well
    if outside.any():
        raise ValueError(f"{int(outside.sum())} probabilities lie outside [0, 1]")
