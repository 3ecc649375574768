"""Naive Bayes over views of a row: what several logits say together.

Views S_1 ... S_n of a row (members of an ensemble, orders of the pair) that are independent given
the label have log p(y | S_1 ... S_n) = sum_k log p(y | S_k) - (n - 1) log p(y) + const. With a pool
P in place of the sum, and beta free (kexue.fm/archives/9617 and 9648), the logit of two labels is

    z = (1 + beta) * P[z_1 ... z_n] - beta * z_0

with z_0 the prior's logit; the mean as P and beta = n - 1 are naive Bayes itself. Views that repeat
each other need a smaller beta: that of five views whose noise is correlated by 0.6 is about 0.5.

With the mean as pool, as many views in every row and one beta and prior, z is an increasing
function of the mean logit: beta then moves the log loss and the threshold and cannot move the AUC.

Shapes: M views, B rows, F features of a view. A view that abstains from a row is NaN there; a row
without any view has z = z_0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit, logit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

Pool = Literal["mean", "max", "min-entropy", "attention"]

BETA_BOUNDS = (-1.0, 50.0)
"""Of a fitted beta: -1 does not look at the views; rows that they tell apart have no best beta."""

SLOPE_BOUNDS = (-20.0, 20.0)
"""Of a fitted slope of attention: rows may have no best one either."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NaiveBayes:
    """z = (1 + beta) * P[z_k] - beta * z_0.

    | pool | P of a row's views |
    |---|---|
    | mean | their mean |
    | max | for each label the view that gives it the most: max_k log p(1) - max_k log p(0) |
    | min-entropy | the view that is surest, of the largest absolute logit |
    | attention | sum_k a_k z_k, a = softmax of slopes times absolute logit and features |

    Attention is the mean where its slopes are 0, and goes to min-entropy as the first one grows.
    """

    prior: float
    """z_0, logit of the share of label 1 that the views' models have learned from."""
    pool: Pool = "mean"
    """How the views of a row become one logit."""
    beta: float | None = None
    """How much views add to each other; none: n - 1 of each row, as if they were independent."""
    slopes: tuple[float, ...] = (1.0,)
    """Of attention: one for the absolute logit, then one for each feature."""

    def apply(self, logits: Floats, features: Floats | None = None) -> Floats:
        """Return (B,), the logit of label 1 given all views.

        Args:
            logits: (M, B), NaN where a view abstains.
            features: (F, M, B), finite; for attention, what else its weights depend on.

        Raises:
            ValueError: Shapes disagree, or a logit is infinite.
        """
        pooled = self.pooled(logits, features)
        beta = np.maximum(num_views(logits) - 1, 0) if self.beta is None else self.beta
        evidence: Floats = pooled - self.prior
        return np.asarray(self.prior + (1 + beta) * evidence)

    def pooled(self, logits: Floats, features: Floats | None = None) -> Floats:
        """Return (B,), P of each row's views; z_0 for a row without any. As `apply`."""
        _check_views(logits)
        is_view = ~np.isnan(logits)
        match self.pool:
            case "mean":
                pooled = _mean(logits, is_view)
            case "max":
                pooled = _max(logits, is_view)
            case "min-entropy":
                surest = np.where(is_view, np.abs(logits), -1.0).argmax(axis=0)
                pooled = np.take_along_axis(logits, surest[None], axis=0)[0]
            case "attention":
                scores = _scores(_confidence(logits, features), np.array(self.slopes))
                pooled = (_attention(scores, is_view) * np.where(is_view, logits, 0)).sum(axis=0)
        return np.where(is_view.any(axis=0), pooled, self.prior)


def prior_logit(labels: NDArray[np.int8]) -> float:
    """Return the logit of the share of label 1.

    Raises:
        ValueError: A class is missing.
    """
    share = float(np.mean(labels))
    if not 0 < share < 1:
        raise ValueError(f"a prior needs labels 0 and 1, got a share of {share:g}")
    return float(logit(share))


def num_views(logits: Floats) -> NDArray[np.int64]:
    """Return (B,), how many of the views (M, B) do not abstain."""
    return np.asarray((~np.isnan(logits)).sum(axis=0))


def shift_prior(logits: Floats, *, prior: float, new_prior: float) -> Floats:
    """Return the logits (B,) of rows whose prior's logit is another than the models have learned.

    Bayes: where only p(y) changes and p(S | y) stays, the posterior's logit moves by as much as
    the prior's. Every row moves alike, so the AUC stays.
    """
    return np.asarray(logits + (new_prior - prior))


def log_loss_of_logits(labels: NDArray[np.int8], logits: Floats) -> float:
    """Return the mean of -ln p(label), nats, without a probability that rounds to 0 or 1.

    Args:
        labels: (B,), 0 or 1.
        logits: (B,), of label 1.
    """
    return float(-np.mean(log_expit(np.where(labels == 1, logits, -logits))))


def fit_beta(rule: NaiveBayes, logits: Floats, labels: NDArray[np.int8]) -> NaiveBayes:
    """Return the rule with the one beta of the least log loss, which is convex in it.

    Args:
        rule: Its beta is replaced.
        logits: (M, B), of rows that the views' models have not learned.
        labels: (B,), 0 or 1.

    Raises:
        ValueError: As `NaiveBayes.apply`.
    """
    evidence = rule.pooled(logits) - rule.prior

    def loss(beta: float) -> float:
        return log_loss_of_logits(labels, rule.prior + (1 + beta) * evidence)

    found = minimize_scalar(loss, bounds=BETA_BOUNDS, method="bounded", options={"xatol": 1e-7})
    return replace(rule, beta=float(found.x))


def fit_attention(
    logits: Floats, labels: NDArray[np.int8], *, prior: float, features: Floats | None = None
) -> NaiveBayes:
    """Return naive Bayes with attention, beta and slopes of the least log loss found.

    The search goes downhill from the mean with its best beta, so it does not end above it.

    Args:
        logits: (M, B), of rows that the views' models have not learned; NaN where one abstains.
        labels: (B,), 0 or 1.
        prior: Logit of the prior.
        features: (F, M, B), finite; what the weights may depend on beside the absolute logit.

    Raises:
        ValueError: Shapes disagree, or a logit is infinite.
    """
    mean = fit_beta(NaiveBayes(prior=prior), logits, labels)
    inputs, is_view = _confidence(logits, features), ~np.isnan(logits)
    evidence = np.where(is_view, logits - prior, 0)  # 0 for a row without views, too

    def loss(parameters: Floats) -> tuple[float, Floats]:
        beta, slopes = parameters[0], parameters[1:]
        weights = _attention(_scores(inputs, slopes), is_view)  # (M, B)
        pooled = (weights * evidence).sum(axis=0)
        residual = expit(prior + (1 + beta) * pooled) - labels  # (B,): d loss of a row / dz
        spread = weights * (evidence - pooled)  # d pooled / d score of a view
        slope_gradients = [(residual * (spread * each).sum(axis=0)).mean() for each in inputs]
        gradient = np.array([(residual * pooled).mean(), *((1 + beta) * np.array(slope_gradients))])
        return log_loss_of_logits(labels, prior + (1 + beta) * pooled), gradient

    start = np.array([mean.beta, *np.zeros(len(inputs))])
    bounds = [BETA_BOUNDS, *[SLOPE_BOUNDS] * len(inputs)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds)
    beta, *slopes = map(float, found.x)
    return NaiveBayes(prior=prior, pool="attention", beta=beta, slopes=tuple(slopes))


def _mean(logits: Floats, is_view: NDArray[np.bool_]) -> Floats:
    total = np.where(is_view, logits, 0).sum(axis=0)
    return np.asarray(total / np.maximum(is_view.sum(axis=0), 1))


def _max(logits: Floats, is_view: NDArray[np.bool_]) -> Floats:
    is_silent = ~is_view.any(axis=0)
    highest = np.where(is_view | is_silent, np.nan_to_num(logits), -np.inf).max(axis=0)
    lowest = np.where(is_view | is_silent, np.nan_to_num(logits), np.inf).min(axis=0)
    return np.asarray(log_expit(highest) - log_expit(-lowest))


def _confidence(logits: Floats, features: Floats | None) -> Floats:
    """Return (1 + F, M, B): absolute logits, 0 where a view abstains, and the features."""
    confidence = np.nan_to_num(np.abs(logits))[None]
    if features is None:
        return confidence
    if features.shape[1:] != logits.shape:
        raise ValueError(f"expected features (F, {logits.shape}), got {features.shape}")
    return np.concatenate([confidence, features])


def _scores(inputs: Floats, slopes: Floats) -> Floats:
    """Return (M, B), what the softmax over views is taken of."""
    if len(slopes) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs of attention, but {len(slopes)} slopes")
    return np.asarray(np.tensordot(slopes, inputs, axes=1))


def _attention(scores: Floats, is_view: NDArray[np.bool_]) -> Floats:
    """Return (M, B): softmax over the views of each row, 0 where one abstains."""
    scores = np.where(is_view, scores, -np.inf)
    highest = scores.max(axis=0)
    weights = np.exp(scores - np.where(np.isfinite(highest), highest, 0))
    return np.asarray(weights / np.maximum(weights.sum(axis=0), np.finfo(np.float64).tiny))


def _check_views(logits: Floats) -> None:
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f"expected logits (M, B) of one view or more, got {logits.shape}")
    if np.isinf(logits).any():
        raise ValueError(f"{int(np.isinf(logits).sum())} logits are infinite")
