"""How the test differs from the labelled rows, and what each labelled row then counts for.

A discriminator learns to tell rows of the test from labelled rows by their features alone. Its AUC
is 0.5 where nothing tells them apart. Where something does, its odds estimate the ratio of the
two densities, p(test | x) / p(labelled | x) ~ p_test(x) / p_labelled(x) = w(x), and a mean over
labelled rows weighted by w is a mean over rows like the test's (Shimodaira 2000, 'Improving
predictive inference under covariate shift by weighting the log-likelihood function'; weighted
validation: Sugiyama, Krauledat & Müller 2007). It holds as far as features that are not seen here
do not drift, and as far as rows like the test's exist among the labelled ones at all.

Weights cost rows: n weighted rows say as much as (sum w)^2 / sum w^2 plain ones (Kish 1965). Where
there is no drift they would be noise alone, so they are flattened: w^power, Shimodaira's exponent
in [0, 1], here the slope of a logistic regression of 'is of the test' on the discriminator's
logits for rows it did not see. Logits that are as steep as the truth have slope 1, logits that are
noise slope 0.

The discriminator is boosted trees of 8 leaves. Of the bundled sample and of two public corpora a
part was made a test of longer texts, at three strengths each: the flattened weights left 2 to 28 %
of the drift of the mean length, a logistic regression overshot by up to 47 %, and splines before
the regression left 1 to 16 % but see no interaction.

Shapes: B labelled rows, T rows of the test, R = B + T, S rows that are sampled for fitting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from desmatch.data.split import CUT, assign_folds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.data.graph import QueryGraph

MAX_ROWS = 20_000
"""Rows of either kind that a discriminator is fitted on and its AUC measured on."""

NUM_FOLDS = 5
"""Parts of the joint query graph, each scored by a discriminator that saw none of its rows."""

LARGEST_WEIGHT = 10.0
"""A row counts for at most so many rows of mean weight."""


class FeatureDrift(NamedTuple):
    """How one feature differs between labelled rows and test.

    Attributes:
        name: Of the feature.
        auc: Of the feature alone as a score of 'is of the test'; 0.5: no drift, below: smaller in
            the test.
        labelled_mean: Over the labelled rows.
        test_mean: Over the test's rows.
        importance: What the discriminator's AUC loses when the feature is shuffled.
    """

    name: str
    auc: float
    labelled_mean: float
    test_mean: float
    importance: float


class Drift(NamedTuple):
    """What tells the test from the labelled rows.

    Attributes:
        is_test: (S,), int8, for the rows the AUC is measured on.
        logits: (S,), cross-fitted: no row was scored by a discriminator that saw a text of it.
        groups: (S,), int64, component of the joint query graph, or a part of one that was cut.
        features: The most different first.
        weights: (B,), what each labelled row counts for, mean 1.
        power: The exponent that flattened the weights, 0 to 1.
    """

    is_test: NDArray[np.int8]
    logits: NDArray[np.float64]
    groups: NDArray[np.int64]
    features: list[FeatureDrift]
    weights: NDArray[np.float64]
    power: float

    @property
    def auc(self) -> float:
        """AUC of the discriminator on all features."""
        return float(roc_auc_score(self.is_test, self.logits))


class _Pool(NamedTuple):
    """Labelled rows, then the test's, dealt to folds by the components of their joint graph.

    Attributes:
        is_test: (R,).
        fold: (R,), 0 to NUM_FOLDS - 1, or CUT.
        groups: (R,).
        sample: (S,), row numbers that discriminators are fitted and measured on; none at CUT.
    """

    is_test: NDArray[np.int8]
    fold: NDArray[np.int32]
    groups: NDArray[np.int64]
    sample: NDArray[np.int64]


def measure_drift(
    labelled: Mapping[str, NDArray[np.float64]],
    test: Mapping[str, NDArray[np.float64]],
    graph: QueryGraph,
    *,
    rng: np.random.Generator,
) -> Drift:
    """Tell the test from the labelled rows and weigh the latter.

    One discriminator knows the features and the degree in the query graph: its AUC and its
    features' importance are reported. Another knows the features alone and gives the weights: a row
    of the test owes part of its degree to labelled rows, whose label a model has seen, while a
    row that is held out never has a known query, so at the same degree the two are not alike.

    Args:
        labelled: Name to (B,), as `row_features` returns it.
        test: Name to (T,), the same names.
        graph: Of the R rows, the labelled ones first.
        rng: Deals the components, draws the sample, shuffles.
    """
    num_labelled = len(next(iter(labelled.values())))
    columns = {name: np.concatenate([labelled[name], test[name]]) for name in labelled}
    pool = _pool(graph, num_labelled, rng)
    features = np.stack([*columns.values()], axis=1)
    columns["degree"] = pair_degree(graph)
    seed = int(rng.integers(2**31))
    logits, importance = _cross_fit(np.stack([*columns.values()], axis=1), pool, seed)
    row_logits, _ = _cross_fit(features, pool, seed, needs_importance=False)
    power = _slope(row_logits[pool.sample], pool.is_test[pool.sample])
    return Drift(
        is_test=pool.is_test[pool.sample],
        logits=logits[pool.sample],
        groups=pool.groups[pool.sample],
        features=_ranked(columns, importance, pool.is_test),
        weights=importance_weights(row_logits[:num_labelled], power=power),
        power=power,
    )


def pair_degree(graph: QueryGraph) -> NDArray[np.float64]:
    """(R,), in how many of all R pairs the more frequent of a pair's two texts stands.

    A degree grows with the number of pairs it is counted in, so degrees within the labelled rows
    and degrees within the test cannot be compared. Counted in both together they can: where the
    test was drawn from the same source, pair by pair or component by component, who is of the test
    is independent of the joint graph. (In equally large samples of pairs they cannot: a sample of
    pairs thins out the hubs that a test of whole components keeps.)
    """
    degree = np.bincount(np.concatenate([graph.a, graph.b]), minlength=graph.num_texts)
    return np.maximum(degree[graph.a], degree[graph.b]).astype(np.float64)


def importance_weights(logits: NDArray[np.float64], *, power: float) -> NDArray[np.float64]:
    """Return exp(power * logits), cut off so that none exceeds LARGEST_WEIGHT, mean 1: (B,).

    Args:
        logits: (B,), log odds of 'is of the test'.
        power: 0: all rows alike, 1: the odds themselves.
    """
    scaled = power * logits
    odds = np.exp(scaled - scaled.max())
    weights = np.minimum(odds, _cut_off(odds))
    mean_one: NDArray[np.float64] = weights / weights.mean()
    return mean_one


def _cut_off(odds: NDArray[np.float64]) -> float:
    """Return the c for which the largest of min(odds, c) is LARGEST_WEIGHT times their mean.

    With the k largest cut off and r the sum of the others, c = LARGEST_WEIGHT (k c + r) / B.
    """
    falling = np.sort(odds)[::-1]
    k = np.arange(-(-len(odds) // int(LARGEST_WEIGHT)))  # so many at most can be the largest
    rest = falling.sum() - np.concatenate([[0.0], np.cumsum(falling)])[k]
    cut_off = LARGEST_WEIGHT * rest / (len(odds) - LARGEST_WEIGHT * k)
    return float(cut_off[np.argmax(cut_off >= falling[k] * (1 - 1e-12))])


def effective_share(weights: NDArray[np.float64]) -> float:
    """Return Kish's (sum w)^2 / (B sum w^2): the share of rows that weighting leaves."""
    return float(weights.sum() ** 2 / (len(weights) * (weights**2).sum()))


def _pool(graph: QueryGraph, num_labelled: int, rng: np.random.Generator) -> _Pool:
    """Deal the components of the joint graph to folds and draw the sample."""
    is_test = (np.arange(len(graph.a)) >= num_labelled).astype(np.int8)
    try:
        fold, groups, _ = assign_folds(graph, is_test, num_folds=NUM_FOLDS, rng=rng)
    except ValueError:  # fewer components than folds: nothing can be told
        fold, groups = np.zeros(len(is_test), np.int32), graph.pair_component.astype(np.int64)
    kinds = (np.flatnonzero((is_test == kind) & (fold != CUT)) for kind in (0, 1))
    sample = np.concatenate([rng.permutation(rows)[:MAX_ROWS] for rows in kinds])
    return _Pool(is_test, fold, groups, np.sort(sample))


def _cross_fit(
    features: NDArray[np.float64], pool: _Pool, seed: int, *, needs_importance: bool = True
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score every row by a discriminator that saw no row of its fold.

    A pair at CUT, whose texts lie in two folds, is in no sample, so none has seen it; it gets the
    mean logit of all discriminators, some of which saw one of its texts.

    Args:
        features: (R, F).
        pool: Folds and sample.
        seed: Of the shuffling.
        needs_importance: Whether each feature is shuffled in the rows of each fold.

    Returns:
        (R,) log odds less those of the fitted rows, and (F,) the mean loss of AUC.
    """
    logits = np.zeros(len(features))
    losses = []
    at_cut = pool.fold == CUT
    fold_of_sample = pool.fold[pool.sample]
    for fold in range(NUM_FOLDS):
        fitted = pool.sample[fold_of_sample != fold]
        share = pool.is_test[fitted].mean() if len(fitted) else 0.0
        if not 0 < share < 1:
            continue  # one kind only: the logits stay 0
        model = _discriminator(len(fitted)).fit(features[fitted], pool.is_test[fitted])
        prior = np.log(share / (1 - share))
        for rows, part in ((pool.fold == fold, 1), (at_cut, NUM_FOLDS)):
            if rows.any():
                logits[rows] += (model.decision_function(features[rows]) - prior) / part
        held_out = pool.sample[fold_of_sample == fold]
        if needs_importance and len(np.unique(pool.is_test[held_out])) == 2:
            x, y = features[held_out], pool.is_test[held_out]
            shuffled = permutation_importance(
                model, x, y, scoring="roc_auc", n_repeats=1, random_state=seed
            )
            losses.append(shuffled.importances_mean)
    none = np.zeros(features.shape[1])
    return logits, np.mean(losses, axis=0) if losses else none


def _discriminator(num_rows: int) -> HistGradientBoostingClassifier:
    """Return boosted trees that have not been fitted."""
    return HistGradientBoostingClassifier(
        max_iter=50,
        learning_rate=0.1,
        max_leaf_nodes=8,
        min_samples_leaf=min(50, max(2, num_rows // 10)),
        early_stopping=False,
        random_state=0,
    )


def _slope(logits: NDArray[np.float64], is_test: NDArray[np.int8]) -> float:
    """Return how steeply 'is of the test' follows the logits, between 0 and 1."""
    if len(np.unique(is_test)) < 2:
        return 0.0
    fitted = LogisticRegression(C=1e6).fit(logits[:, None], is_test)
    return float(np.clip(fitted.coef_[0, 0], 0, 1))


def _ranked(
    columns: Mapping[str, NDArray[np.float64]],
    importance: NDArray[np.float64],
    is_test: NDArray[np.int8],
) -> list[FeatureDrift]:
    """Compare each feature on its own; the farthest from 0.5 first."""
    found = [
        FeatureDrift(
            name=name,
            auc=float(roc_auc_score(is_test, values)),
            labelled_mean=float(values[is_test == 0].mean()),
            test_mean=float(values[is_test == 1].mean()),
            importance=float(loss),
        )
        for (name, values), loss in zip(columns.items(), importance, strict=True)
    ]
    return sorted(found, key=lambda each: -abs(each.auc - 0.5))
