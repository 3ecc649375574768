"""Members' logits into one: fitted on out-of-fold rows, applied to rows of any kind.

A combination is a rule (a frozen dataclass); `fit` on out-of-fold rows gives what `apply` needs,
and the same fitted rule combines the test. For figures, `combine_out_of_fold` fits on all folds but
one and applies to that one: no row's label has a say in its own combined logit.

    fitted = LogitWeights().fit(views, labels)
    test_scores = expit(fitted.apply(test_views))

Combined logits are returned, not probabilities: many sure members reach logits whose probabilities
round to 1, and tie. A member that abstains from a row (NaN) counts as the mean of the others there.

Shapes: M members, B rows, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from scipy.stats import rankdata

from desmatch.ensemble.naive_bayes import (
    NaiveBayes,
    fit_attention,
    fit_beta,
    log_loss_of_logits,
    prior_logit,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.ensemble.naive_bayes import Pool

    Floats = NDArray[np.float64]
    Labels = NDArray[np.int8]

LARGEST_LOGIT = 700.0
"""Logits are cut here, where exp is still finite."""


class Views(NamedTuple):
    """What is known of rows: members' logits, and features for those that stack.

    Attributes:
        logits: (M, B), NaN where a member abstains; each row has one that does not.
        features: (F, B), or none.
    """

    logits: Floats
    features: Floats | None = None

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Views:
        """Return the views of some rows."""
        features = None if self.features is None else self.features[:, rows]
        return Views(self.logits[:, rows], features)


class Fitted(Protocol):
    """A combination that knows its parameters."""

    def apply(self, views: Views) -> Floats:
        """Return (B,), combined logits.

        Raises:
            ValueError: There are other members than were fitted, a row has none, or a logit is
                infinite.
        """


class Combination(Protocol):
    """A rule for making one logit of several."""

    def fit(self, views: Views, labels: Labels) -> Fitted:
        """Fit to rows that the members have not learned; labels (B,), 0 or 1.

        Raises:
            ValueError: As `Fitted.apply`, or a class is missing.
        """


@dataclass(frozen=True, slots=True)
class Weighted:
    """A weighted mean of probabilities or of logits.

    Attributes:
        weights: One for each member; of probabilities they sum to 1.
        space: What is averaged.
        intercept: Added to the logits' mean.
    """

    weights: tuple[float, ...]
    space: Literal["probability", "logit"] = "logit"
    intercept: float = 0.0

    def apply(self, views: Views) -> Floats:
        """As `Fitted.apply`."""
        logits = check_views(views.logits, num_members=len(self.weights))
        weights = np.array(self.weights)
        if self.space == "logit":
            return np.asarray(weights @ fill_abstained(logits) + self.intercept)
        positive, negative = (weights @ fill_abstained(expit(side)) for side in (logits, -logits))
        return np.asarray(np.log(positive) - np.log(negative))


@dataclass(frozen=True, slots=True)
class Mean:
    """All members count alike, by their probabilities or their logits."""

    space: Literal["probability", "logit"] = "probability"

    def fit(self, views: Views, labels: Labels) -> Weighted:  # noqa: ARG002 - nothing to learn
        """As `Combination.fit`."""
        num_members = len(views.logits)
        return Weighted((1 / num_members,) * num_members, self.space)


class Ranks(NamedTuple):
    """Each member's logits and their mid-ranks among the fitted rows, between 0 and 1.

    A logit between two fitted ones is placed between their ranks; beyond the outermost ones ranks
    go on to 0 and 1 and never reach them, so that no order is lost.
    """

    members: tuple[tuple[Floats, Floats], ...]

    def apply(self, views: Views) -> Floats:
        """As `Fitted.apply`."""
        logits = check_views(views.logits, num_members=len(self.members))
        ranks = [_rank(each, *known) for each, known in zip(logits, self.members, strict=True)]
        return np.asarray(logit(fill_abstained(np.stack(ranks)).mean(axis=0)))


@dataclass(frozen=True, slots=True)
class RankMean:
    """The mean over members of a row's rank among the fitted rows."""

    def fit(self, views: Views, labels: Labels) -> Ranks:  # noqa: ARG002 - ranks need no labels
        """As `Combination.fit`."""
        logits = check_views(views.logits)
        return Ranks(tuple(_mid_ranks(each[~np.isnan(each)]) for each in logits))


@dataclass(frozen=True, slots=True)
class LogitWeights:
    """Logistic regression on the members' logits, no weight below 0.

    Minimises sum of log losses + |weights|^2 / (2 C): scikit-learn's, but for the bound, which
    keeps a member from being subtracted from its like.
    """

    c: float = 1.0
    """Inverse strength of the penalty, as scikit-learn's `C`."""

    def fit(self, views: Views, labels: Labels) -> Weighted:
        """As `Combination.fit`."""
        logits = fill_abstained(check_views(views.logits))
        prior = prior_logit(labels)
        num_members, num_rows = logits.shape
        strength = 1 / (self.c * num_rows)

        def loss(parameters: Floats) -> tuple[float, Floats]:
            intercept, weights = parameters[0], parameters[1:]
            combined = weights @ logits + intercept
            residual = (expit(combined) - labels) / num_rows
            penalty = strength * (weights @ weights) / 2
            gradient = np.array([residual.sum(), *(logits @ residual + strength * weights)])
            return log_loss_of_logits(labels, combined) + penalty, gradient

        start = np.array([0.0, *[1 / num_members] * num_members])
        start[0] = prior - float(start[1:] @ logits.mean(axis=1))
        bounds = [(None, None), *[(0, None)] * num_members]
        options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 1000}
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        intercept, *weights = map(float, found.x)
        return Weighted(tuple(weights), "logit", intercept)


class FittedNaiveBayes(NamedTuple):
    """Naive Bayes whose prior, and beta where it was asked for, are known."""

    rule: NaiveBayes

    def apply(self, views: Views) -> Floats:
        """As `Fitted.apply`."""
        return self.rule.apply(check_views(views.logits))


@dataclass(frozen=True, kw_only=True, slots=True)
class NaiveBayesOf:
    """Naive Bayes over the members, see `desmatch.ensemble.naive_bayes`."""

    pool: Pool = "mean"
    """How a row's members become one logit."""
    beta: float | Literal["fit"] | None = "fit"
    """A number, `fit` by log loss, or none: n - 1 of each row. Attention always fits."""
    prior: float | None = None
    """Logit of the prior that the members have learned; none: of the fitted rows' labels."""

    def fit(self, views: Views, labels: Labels) -> FittedNaiveBayes:
        """As `Combination.fit`."""
        logits = check_views(views.logits)
        prior = prior_logit(labels) if self.prior is None else self.prior
        if self.pool == "attention":
            return FittedNaiveBayes(fit_attention(logits, labels, prior=prior))
        if self.beta == "fit":
            rule = NaiveBayes(prior=prior, pool=self.pool)
            return FittedNaiveBayes(fit_beta(rule, logits, labels))
        return FittedNaiveBayes(NaiveBayes(prior=prior, pool=self.pool, beta=self.beta))


COMBINATIONS: Mapping[str, Combination] = {
    "probability-mean": Mean("probability"),
    "logit-mean": Mean("logit"),
    "rank-mean": RankMean(),
    "logit-weights": LogitWeights(),
    "naive-bayes": NaiveBayesOf(),
    "naive-bayes-independent": NaiveBayesOf(beta=None),
    "naive-bayes-max": NaiveBayesOf(pool="max"),
    "naive-bayes-min-entropy": NaiveBayesOf(pool="min-entropy"),
    "naive-bayes-attention": NaiveBayesOf(pool="attention"),
}
"""The combinations that need nothing but logits, by name."""


def order_views(
    forward: Floats, backward: Floats, *, of: Literal["members", "orders", "both"]
) -> Floats:
    """Return (M', B): views that are members (M), orders of the pair (2), or both (2M).

    Args:
        forward: (M, B), logits of the pairs as they stand.
        backward: (M, B), logits of the pairs with their texts exchanged.
        of: What is a view; over the rest the mean is taken.
    """
    both = np.stack([forward, backward])  # (2, M, B)
    match of:
        case "members":
            return np.asarray(both.mean(axis=0))
        case "orders":
            return np.asarray(both.mean(axis=1))
        case "both":
            return both.reshape(-1, both.shape[-1])


class CrossFitted(NamedTuple):
    """Rows combined by rules that were fitted on other folds.

    Attributes:
        logits: (B,), as each fold's rule gives them: for the log loss.
        ranks: (B,), a row's mid-rank among all rows by its own fold's rule: for the AUC. Rules of
            different folds differ a little in offset and scale, which mixes up the order of rows of
            different folds; the test meets one rule alone. Ranks need no labels.
    """

    logits: Floats
    ranks: Floats


def combine_out_of_fold(
    combination: Combination, views: Views, labels: Labels, folds: NDArray[np.int64]
) -> CrossFitted:
    """Combine each fold by the combination fitted on the other folds.

    Args:
        combination: The rule.
        views: Of out-of-fold rows.
        labels: (B,), 0 or 1.
        folds: (B,), each row's fold; rows that share a text belong into one.

    Raises:
        ValueError: There is but one fold, or as `Combination.fit`.
    """
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise ValueError(f"cross-fitting needs 2 folds or more, got {numbers.tolist()}")
    logits, ranks = np.empty(len(labels)), np.empty(len(labels))
    for number in numbers:
        here = folds == number
        combined = combination.fit(views.take(~here), labels[~here]).apply(views)
        logits[here] = combined[here]
        ranks[here] = rankdata(combined)[here]
    return CrossFitted(logits, ranks)


def fill_abstained(values: Floats) -> Floats:
    """Return (M, B) with each NaN as the mean of its row's other members."""
    is_missing = np.isnan(values)
    if not is_missing.any():
        return values
    mean = np.where(is_missing, 0, values).sum(axis=0) / (~is_missing).sum(axis=0)
    return np.where(is_missing, mean, values)


def check_views(logits: Floats, *, num_members: int | None = None) -> Floats:
    """Return the logits (M, B), cut to what exp can bear.

    Raises:
        ValueError: They are of other members than expected, infinite, or a row has none.
    """
    if logits.ndim != 2 or (num_members is not None and len(logits) != num_members):
        members = "M" if num_members is None else num_members
        raise ValueError(f"expected logits ({members}, B), got {logits.shape}")
    if np.isinf(logits).any():
        raise ValueError(f"{int(np.isinf(logits).sum())} logits are infinite")
    silent = np.isnan(logits).all(axis=0)
    if silent.any():
        raise ValueError(f"{int(silent.sum())} rows have no member's logit")
    return np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)


def _mid_ranks(logits: Floats) -> tuple[Floats, Floats]:
    """Return the distinct logits and their mid-ranks over B, each inside (0, 1)."""
    if not len(logits):
        raise ValueError("a member has no logit in the fitted rows: nothing to rank among")
    values, counts = np.unique(logits, return_counts=True)
    return values, (np.cumsum(counts) - counts / 2) / len(logits)


def _rank(logits: Floats, values: Floats, ranks: Floats) -> Floats:
    rank = np.interp(logits, values, ranks) * np.exp(np.minimum(logits - values[0], 0))
    return np.asarray(1 - (1 - rank) * np.exp(np.minimum(values[-1] - logits, 0)))
