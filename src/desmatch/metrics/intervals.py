"""Intervals of an AUC, by a bootstrap that resamples whole components of the query graph.

Rows that share a text are not independent: a model that reads one text well reads all its rows
well. A bootstrap of rows takes them for independent and is too narrow; components share no text,
so they are what is drawn (Field & Welsh 2007, 'Bootstrapping clustered data'). With few components
the interval is still a little narrow: over 80 simulated ones, 93 to 94 of 100 held the truth.

A resampled AUC needs no sorting. With integer weights w (how often a row's component was drawn),

    AUC = sum_i w_i * (N_below(i) + N_tied(i) / 2) / (sum_i w_i * sum_j w_j)

over positive rows i and negative rows j, where the weight N of the negative rows below and tied
with i is read off one running sum: O(B) a sample after one sort.

Shapes: B rows (pairs), G components, S bootstrap samples.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.metrics.roc import check_labels, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REDRAWS = 20
"""Draws allowed for each sample that is kept; draws that lack a class are thrown away."""


class Interval(NamedTuple):
    """Two bounds of a figure."""

    low: float
    high: float


def bootstrap_auc(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    num_samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of the AUC over resampled components.

    One component alone says nothing about another: its interval is (0, 1). Rows that lack a class
    have no AUC: such samples are drawn again.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float; only their order matters.
        groups: (B,), int, each row's component, or part of a component that was cut.
        rng: Draws the components.
        num_samples: Bootstrap samples.
        level: Share of the samples inside the interval, in (0, 1).

    Raises:
        ValueError: A class is missing, an argument is out of range, or hardly any sample holds
            both classes.
    """
    check_labels(labels, scores)
    if _is_single(groups, labels):
        return Interval(0.0, 1.0)
    aucs = _resampled_aucs(labels, scores, groups, rng=rng, num_samples=num_samples)
    return _central(aucs, level)


def bootstrap_auc_difference(  # noqa: PLR0913 - bootstrap_auc's arguments and one more
    labels: np.ndarray,
    scores: np.ndarray,
    others: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    num_samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the percentile interval of AUC(others) - AUC(scores) on the same rows.

    Every sample draws the same components for both, so what is hard for both cancels out.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float.
        others: (B,), float, another model's scores of the same rows.
        groups: (B,), int, each row's component.
        rng: Draws the components.
        num_samples: Bootstrap samples.
        level: Share of the samples inside the interval, in (0, 1).

    Raises:
        ValueError: As `bootstrap_auc`.
    """
    for each in (scores, others):
        check_labels(labels, each)
    if _is_single(groups, labels):
        return Interval(-1.0, 1.0)
    seed = int(rng.integers(2**63))
    there, here = (
        _resampled_aucs(
            labels, each, groups, rng=np.random.default_rng(seed), num_samples=num_samples
        )
        for each in (scores, others)
    )
    return _central(here - there, level)


def prediction_interval(  # noqa: PLR0913 - bootstrap_auc's arguments and one more
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    test_size: int,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
    num_samples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the interval in which the AUC of another test of `test_size` rows will lie.

    It holds two sampling errors: the validation's, by a bootstrap as large as the validation, and
    the test's, by an independent one of `test_size` rows. Both deviations are added to the AUC. It
    assumes that the test's components are drawn as the validation's were; a shifted test can
    lie outside.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float; only their order matters.
        groups: (B,), int, each row's component, or part of a component that was cut.
        test_size: Rows of the test.
        rng: Draws the components.
        weights: (B,), float, what each row counts for; none: all the same.
        num_samples: Bootstrap samples of each kind.
        level: Share of the tests inside the interval, in (0, 1).

    Raises:
        ValueError: As `bootstrap_auc`, or hardly any test of that size holds both classes.
    """
    if test_size < 2:
        raise ValueError(f"test_size={test_size}: an AUC needs 2 rows or more")
    auc = roc_auc(labels, scores, weights)
    if _is_single(groups, labels):
        return Interval(0.0, 1.0)
    resampled = partial(
        _resampled_aucs, labels, scores, groups, rng=rng, weights=weights, num_samples=num_samples
    )
    validation, test = resampled(), resampled(num_rows=test_size)
    return _central(np.clip(validation + test - auc, 0, 1), level)


def weighted_auc(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    row_weights: np.ndarray | None = None,
) -> Callable[[np.ndarray], float]:
    """Sort the rows once and return the AUC as a function of the components' weights.

    The returned function takes weights (G,), int, how often each component is drawn, and equals
    `roc_auc` of the rows repeated so often; it is NaN where a class has no weight.

    Args:
        labels: (B,), int, 0 or 1.
        scores: (B,), float.
        groups: (B,), int, each row's component, 0 to G-1.
        row_weights: (B,), float, what each row counts for beside; none: all the same.
    """
    order = np.argsort(scores, kind="stable")
    positives, negatives = order[labels[order] == 1], order[labels[order] == 0]
    below = np.searchsorted(scores[negatives], scores[positives], side="left")
    not_above = np.searchsorted(scores[negatives], scores[positives], side="right")
    positive_groups, negative_groups = groups[positives], groups[negatives]
    each = np.ones(len(labels), np.int64) if row_weights is None else row_weights
    positive_each, negative_each = each[positives], each[negatives]

    def auc(weights: np.ndarray) -> float:
        running = np.zeros(len(negatives) + 1, dtype=each.dtype)
        np.cumsum(weights[negative_groups] * negative_each, out=running[1:])
        positive_weights = weights[positive_groups] * positive_each
        pairs = positive_weights.sum().item() * running[-1].item()
        won_twice = (positive_weights @ (running[below] + running[not_above])).item()
        return won_twice / 2 / pairs if pairs else float("nan")

    return auc


def _resampled_aucs(  # noqa: PLR0913 - as prediction_interval
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    num_samples: int,
    num_rows: int | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Return (S,) AUCs of components drawn with replacement, about `num_rows` rows each."""
    names, components = np.unique(groups, return_inverse=True)
    num_components = len(names)
    num_draws = max(1, round(num_components * (num_rows or len(labels)) / len(labels)))
    auc = weighted_auc(labels, scores, components, weights)
    aucs: list[float] = []
    for _ in range(MAX_REDRAWS * num_samples):
        value = auc(_drawn_often(num_components, num_draws, rng))
        if not np.isnan(value):  # a draw without a positive or without a negative row has no AUC
            aucs.append(value)
        if len(aucs) == num_samples:
            return np.array(aucs)
    raise ValueError(
        f"of {MAX_REDRAWS * num_samples} samples of {num_draws} components only {len(aucs)} hold "
        "both classes; ask for more rows"
    )


def _drawn_often(num_components: int, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """Return (G,), how often each component is drawn.

    A function of its own, so that the draws are freed before the AUC needs its arrays: their pages
    then serve again, which halves the time of a sample of 400,000 rows.
    """
    return np.bincount(rng.integers(num_components, size=num_draws), minlength=num_components)


def _is_single(groups: np.ndarray, labels: np.ndarray) -> bool:
    if groups.shape != labels.shape:
        raise ValueError(f"expected a component for each of {len(labels)} rows, got {groups.shape}")
    return bool((groups == groups[0]).all())


def _central(values: np.ndarray, level: float) -> Interval:
    """Return the interval that leaves (1 - level) / 2 of the values on either side."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    tail = (1 - level) / 2
    return Interval(*map(float, np.quantile(values, [tail, 1 - tail])))
