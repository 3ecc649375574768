"""Intervals of an AUC, by a bootstrap that resamples whole components of the query graph.

Rows that share a text are not independent: a model that reads one text well reads all its rows
well. A bootstrap of rows takes them for independent and is too narrow; components share no text,
so they are what is drawn (Field & Welsh 2007, 'Bootstrapping clustered data'). Percentiles of few
components are too narrow by what Student's t is wider than the normal law; the interval is expanded
by that (Hesterberg 2015, 'What Teachers Should Know About the Bootstrap').

A resampled AUC needs no sorting. With weights w (how often a row's component was drawn),

    AUC = sum_i w_i * (N_below(i) + N_tied(i) / 2) / (sum_i w_i * sum_j w_j)

over positive rows i and negative rows j, where the weight N of the negative rows below and tied
with i is read off one running sum: O(B) a sample after one sort. Counts are kept as floats, which
hold them exactly up to 2^53 and have the faster products.

How often a component is drawn follows a Poisson law of its own (Chamandy et al. 2012, 'Estimating
Uncertainty for Massive Data Streams'): the sample's size then varies a little, which a ratio like
the AUC does not see, and drawing is four times faster than with a fixed size.

Shapes: B rows (pairs), G components, S bootstrap samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import stats

from desmatch.metrics.roc import check_labels, roc_auc

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REDRAWS = 20
"""Draws allowed for each sample that is kept; draws that lack a class are thrown away."""


class Interval(NamedTuple):
    """Two bounds of a figure."""

    low: float
    high: float


class PairedDifference(NamedTuple):
    """How much higher a second model's AUC is than a first one's, on the same rows."""

    interval: Interval
    """Of the difference over resampled components."""
    chance_second_is_better: float
    """Share of the samples in which the second AUC is the higher one; a tie counts half."""


def bootstrap_auc(  # noqa: PLR0913 - labels, scores, components and how to draw them
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
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
        weights: (B,), float, what each row counts for; none: all the same.
        num_samples: Bootstrap samples.
        level: Share of the samples inside the interval, in (0, 1).

    Raises:
        ValueError: A class is missing, an argument is out of range, or hardly any sample holds
            both classes.
    """
    check_labels(labels, scores)
    if _is_single(groups, labels):
        return Interval(0.0, 1.0)
    components = _numbered(groups, scores)
    auc = weighted_auc(labels, scores, components, weights)
    draw = _uniform_draws(components, len(labels))
    values = _resampled(auc, draw, rng=rng, num_samples=num_samples)
    return _central(values, level, _effective_components(components, weights))


def paired_bootstrap(  # noqa: PLR0913 - bootstrap_auc's arguments and one more
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    *,
    rng: np.random.Generator,
    num_samples: int = 1000,
    level: float = 0.95,
) -> PairedDifference:
    """Return the percentile interval of AUC(second) - AUC(first) on the same rows.

    Every sample draws the same components for both, so what is hard for both cancels out.

    Args:
        labels: (B,), int, 0 or 1, both present.
        first: (B,), float, a model's scores.
        second: (B,), float, another model's scores of the same rows.
        groups: (B,), int, each row's component.
        rng: Draws the components.
        num_samples: Bootstrap samples.
        level: Share of the samples inside the interval, in (0, 1).

    Raises:
        ValueError: As `bootstrap_auc`.
    """
    for each in (first, second):
        check_labels(labels, each)
    if _is_single(groups, labels):
        return PairedDifference(Interval(-1.0, 1.0), 0.5)
    components = _numbered(groups, first)
    first_auc, second_auc = (weighted_auc(labels, each, components) for each in (first, second))
    draw = _uniform_draws(components, len(labels))
    differences = _resampled(
        lambda drawn: second_auc(drawn) - first_auc(drawn), draw, rng=rng, num_samples=num_samples
    )
    better = (differences > 0).mean() + (differences == 0).mean() / 2
    interval = _central(differences, level, _effective_components(components))
    return PairedDifference(interval, float(better))


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
    assumes that the test's components are drawn as the validation's were, or, with weights, as
    often as their rows weigh; a test that differs in another way can lie outside.

    Weights enter the two errors in different ways. In the validation a row counts for its weight,
    and few heavy rows make the figure unsure. In the test every row counts for one, and rows like
    the heavy ones are many: there components are drawn as often as their rows weigh in the mean.

    Args:
        labels: (B,), int, 0 or 1, both present.
        scores: (B,), float; only their order matters.
        groups: (B,), int, each row's component, or part of a component that was cut.
        test_size: Rows of the test.
        rng: Draws the components.
        weights: (B,), float, 0 or more, what each row counts for; none: all the same.
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
    components = _numbered(groups, scores)
    of_validation = weighted_auc(labels, scores, components, weights)
    of_test, draw_test = of_validation, _uniform_draws(components, test_size)
    if weights is not None:
        mean_weights = _means(weights, components)
        draw_test = _weighted_draws(components, test_size, mean_weights)
        within = np.divide(weights, mean_weights[components], where=weights > 0,
                           out=np.zeros(len(weights)))  # fmt: skip
        of_test = weighted_auc(labels, scores, components, within)
    draw_validation = _uniform_draws(components, len(labels))
    validation = _resampled(of_validation, draw_validation, rng=rng, num_samples=num_samples)
    test = _resampled(of_test, draw_test, rng=rng, num_samples=num_samples)
    both = np.clip(validation + test - auc, 0, 1)
    return _central(both, level, _effective_components(components, weights))


def effective_rows(weights: np.ndarray) -> float:
    """Return how many rows of equal weight are as sure as these: (sum w)^2 / sum w^2 (Kish 1965).

    Args:
        weights: (B,), float, 0 or more, not all 0.
    """
    return float(weights.sum() ** 2 / (weights @ weights))


def weighted_auc(
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    row_weights: np.ndarray | None = None,
) -> Callable[[np.ndarray], float]:
    """Sort the rows once and return the AUC as a function of the components' weights.

    The returned function takes weights (G,), how often each component is drawn, and equals
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
    has_ties = bool((below != not_above).any())
    positive_groups, negative_groups = groups[positives], groups[negatives]
    running = np.zeros(len(negatives) + 1)
    won_by = np.empty(len(positives))
    positive_weights, negative_weights = np.empty(len(positives)), np.empty(len(negatives))
    each = None if row_weights is None else (row_weights[positives], row_weights[negatives])

    def auc(weights: np.ndarray) -> float:
        weights = weights.astype(np.float64, copy=False)
        # arrays that serve again: fresh ones of this size cost more than the arithmetic
        np.take(weights, positive_groups, out=positive_weights, mode="clip")
        np.take(weights, negative_groups, out=negative_weights, mode="clip")
        if each is not None:
            np.multiply(positive_weights, each[0], out=positive_weights)
            np.multiply(negative_weights, each[1], out=negative_weights)
        np.cumsum(negative_weights, out=running[1:])
        pairs = positive_weights.sum() * running[-1]
        won = positive_weights @ np.take(running, below, out=won_by, mode="clip")
        if has_ties:
            won += positive_weights @ np.take(running, not_above, out=won_by, mode="clip")
            won /= 2
        return float(won / pairs) if pairs else float("nan")

    return auc


def _resampled(
    auc: Callable[[np.ndarray], float],
    draw: Callable[[np.random.Generator], np.ndarray],
    *,
    rng: np.random.Generator,
    num_samples: int,
) -> np.ndarray:
    """Return (S,) values of `auc` at the components that `draw` drew."""
    values: list[float] = []
    for _ in range(MAX_REDRAWS * num_samples):
        value = auc(draw(rng))
        if not np.isnan(value):  # a draw without a positive or without a negative row has no AUC
            values.append(value)
        if len(values) == num_samples:
            return np.array(values)
    raise ValueError(
        f"of {MAX_REDRAWS * num_samples} samples of components only {len(values)} hold "
        "both classes; ask for more rows"
    )


def _numbered(groups: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return (B,), components as 0 to G-1 in the order in which the sorted rows meet them.

    Neighbours in the order of the scores then read neighbouring weights, which halves the time of
    a sample of 400,000 rows. Which number a component has does not matter: all are drawn alike.
    """
    order = np.argsort(scores, kind="stable")
    _, first, component = np.unique(groups[order], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    numbers = np.empty(len(groups), np.int64)
    numbers[order] = rank[component]
    return numbers


def _uniform_draws(
    components: np.ndarray, num_rows: int
) -> Callable[[np.random.Generator], np.ndarray]:
    """Return what draws components, each as often as any other, about `num_rows` rows together.

    The drawn value is (G,), how often each component is drawn; it holds until the next draw.
    """
    num_components = int(components.max()) + 1
    table = _poisson_quantiles(num_rows / len(components))
    drawn = np.empty(num_components)  # serves again

    def draw(rng: np.random.Generator) -> np.ndarray:
        which = rng.integers(2**16, size=num_components, dtype=np.uint16)
        return np.take(table, which, out=drawn, mode="clip")

    return draw


def _poisson_quantiles(rate: float) -> np.ndarray:
    """Return the quantiles of a Poisson law at 2^16 equal steps between 0 and 1, (2^16,)."""
    counts = np.arange(np.ceil(rate + 10 * np.sqrt(rate) + 20))
    quantiles = (np.arange(2**16) + 0.5) / 2**16
    return np.searchsorted(stats.poisson.cdf(counts, rate), quantiles).astype(np.float64)


def _weighted_draws(
    components: np.ndarray, num_rows: int, weights: np.ndarray
) -> Callable[[np.random.Generator], np.ndarray]:
    """Like `_uniform_draws`, each component as often as its weight (G,) says."""
    rates = weights * (num_rows / (np.bincount(components) @ weights))
    return lambda rng: rng.poisson(rates)


def _means(weights: np.ndarray, components: np.ndarray) -> np.ndarray:
    """Return (G,), the mean weight of each component's rows."""
    means: np.ndarray = np.bincount(components, weights=weights) / np.bincount(components)
    return means


def _is_single(groups: np.ndarray, labels: np.ndarray) -> bool:
    if groups.shape != labels.shape:
        raise ValueError(f"expected a component for each of {len(labels)} rows, got {groups.shape}")
    return bool((groups == groups[0]).all())


def _effective_components(components: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return how many components of equal weight are as sure as these."""
    return effective_rows(np.bincount(components, weights=weights).astype(np.float64))


def _central(values: np.ndarray, level: float, num_components: float) -> Interval:
    """Return the interval between two quantiles, nearer to the ends the fewer the components.

    For many components it leaves (1 - level) / 2 of the values on either side.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    freedom = max(num_components - 1, 1.0)
    reach = stats.t.ppf((1 - level) / 2, freedom) * np.sqrt((freedom + 1) / freedom)
    tail = stats.norm.cdf(reach)
    return Interval(*map(float, np.quantile(values, [tail, 1 - tail])))
