"""What a run claims of the test: the figure we recommend, and where the test's score will lie.

Three figures stand for the test, each for another way in which it came about:

| figure | what it takes for granted |
|---|---|
| `auc` | the test's rows are like the held-out ones, and none shares a query with training |
| `weighted_auc` | as `auc`, but rows of some kinds are more frequent in the test |
| `expected_test_auc` | the test was drawn row by row, so some of its queries are known |

The last one takes rows held out one by one and, beside them, those rows held out by components that
share no text with another row: they, too, stand for the test's rows without a known query. All rows
of the fold would not: those of larger components have a known query in such a test.

Shapes: B held-out rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from desmatch.metrics.intervals import prediction_interval
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.recipe import Recipe

MATERIAL_DRIFT = 0.55
"""Drift counts where the AUC of telling test from labelled rows lies above this, its interval and
all. Samples of one source showed 0.50, tests of longer texts 0.86 and more (benchmarks/RESULTS.md);
where between the two weights begin to pay was not measured."""


class RandomRows(NamedTuple):
    """Rows held out on their own, with scores of weights that were not chosen on them.

    Attributes:
        labels: (B,), 0 or 1.
        scores: (B,).
        groups: (B,), components of the query graph.
        has_known_query: (B,), whether the row shares a text with a row that trained.
        known_share: Share of the test's rows for which this holds.
        weights: (B,), density of the test over that of the labelled rows.
    """

    labels: NDArray[np.int8]
    scores: NDArray[np.float64]
    groups: NDArray[np.int64]
    has_known_query: NDArray[np.bool_]
    known_share: float
    weights: NDArray[np.float64]

    def with_unknown(
        self,
        labels: NDArray[np.int8],
        scores: NDArray[np.float64],
        groups: NDArray[np.int64],
        weights: NDArray[np.float64],
    ) -> RandomRows:
        """Return these rows and further held-out ones none of whose queries is known."""
        return RandomRows(
            labels=np.concatenate([self.labels, labels]),
            scores=np.concatenate([self.scores, scores]),
            groups=np.concatenate([self.groups, groups]),
            has_known_query=np.append(self.has_known_query, np.zeros(len(labels), bool)),
            known_share=self.known_share,
            weights=np.concatenate([self.weights, weights]),
        )


def is_material(drift: Mapping[str, Any]) -> bool:
    """Return whether test and labelled rows differ by more than weights would cost.

    Args:
        drift: `auc` and `interval` of telling them apart.
    """
    return bool(drift["interval"][0] > MATERIAL_DRIFT)


def known_query_weights(
    has_known_query: NDArray[np.bool_], known_share: float, weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return weights with which rows with a known query count for their share in the test.

    Post-stratification: within either kind the weights keep their ratios.

    Args:
        has_known_query: (B,), both values present.
        known_share: Share of the test's rows with a known query.
        weights: (B,), float, of other causes.

    Returns:
        (B,), mean 1.
    """
    total = weights[has_known_query].sum(), weights[~has_known_query].sum()
    factor = np.where(has_known_query, known_share / total[0], (1 - known_share) / total[1])
    mean_one: NDArray[np.float64] = weights * factor * len(weights)
    return mean_one


def expected_test_figures(
    rows: RandomRows, recipe: Recipe, drift: Mapping[str, Any], *, test_size: int
) -> dict[str, Any]:
    """Return what the test will show if it was split off row by row.

    Rows with a known query and rows without one count for as much as in the test, whatever their
    share among the rows held out; where the test has drifted, rows like its rows count for more.
    `prepare` has seen to it that the rows show both labels, and both rows with a known query and
    without one.

    Args:
        rows: Held out one by one.
        recipe: Its seed and its number of bootstrap samples are used.
        drift: `auc` and `interval` of telling test and labelled rows apart.
        test_size: Rows of the test.
    """
    known = rows.has_known_query
    own = rows.weights if is_material(drift) else np.ones(len(known))
    weights = known_query_weights(known, rows.known_share, own)
    interval = prediction_interval(
        rows.labels,
        rows.scores,
        rows.groups,
        test_size=test_size,
        weights=weights,
        rng=generator(recipe.seed, "random rows' bootstrap"),
        num_samples=recipe.validation.num_bootstraps,
    )
    return {
        "expected_test_auc": roc_auc(rows.labels, rows.scores, weights),
        "expected_test_interval": [*interval],
        "expected_test_rows": len(known),
        "random_rows_with_known_query": int(known.sum()),
        "test_share_with_known_query": rows.known_share,
    }


def headline(figures: Mapping[str, Any], drift: Mapping[str, Any]) -> dict[str, Any]:
    """Return name, value, interval of a test's score, and why this figure is the one to believe.

    Args:
        figures: `auc` and `test_interval`, `weighted_auc` and `weighted_interval` and, where rows
            were held out one by one, `expected_test_auc` and `expected_test_interval`.
        drift: `auc` and `interval` of telling test and labelled rows apart.
    """
    has_drift = is_material(drift)
    weighted = "held-out rows count for as much as rows like them are frequent in the test"
    if "expected_test_auc" in figures:
        name, interval = "expected_test_auc", "expected_test_interval"
        share = figures["test_share_with_known_query"]
        why = (
            f"{share:.0%} of the test's rows have a query that rows in training have, and rows "
            f"held out one by one show what those score{f'; {weighted}' if has_drift else ''}"
        )
    elif has_drift:
        name, interval = "weighted_auc", "weighted_interval"
        why = f"test and labelled rows can be told apart (AUC {drift['auc']:.3f}), so {weighted}"
    else:
        name, interval = "auc", "test_interval"
        why = (
            f"test and labelled rows can hardly be told apart (AUC {drift['auc']:.3f}), so "
            "held-out rows stand for the test as they are"
        )
    return {"name": name, "value": figures[name], "interval": figures[interval], "why": why}
