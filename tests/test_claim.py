from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.claim import (
    MATERIAL_DRIFT,
    RandomRows,
    expected_test_figures,
    headline,
    known_query_weights,
)
from desmatch.recipe import Recipe

RECIPE = Recipe()
LEVEL = {"auc": 0.51, "interval": [0.5, 0.52]}
SHIFTED = {"auc": 0.7, "interval": [0.69, 0.71]}


def random_rows(*, known_share, num_rows=4000, known_of_them=0.5, weights=None):
    """Rows with a known query are told apart well, the others hardly."""
    rng = np.random.default_rng(0)
    known = rng.random(num_rows) < known_of_them
    labels = rng.integers(0, 2, num_rows)
    scores = np.where(known, 3.0, 0.3) * labels + rng.normal(size=num_rows)
    weights = np.ones(num_rows) if weights is None else weights
    return RandomRows(labels, scores, np.arange(num_rows), known, known_share, weights)


def test_known_queries_count_as_in_the_test():
    rare, balanced, frequent = (
        expected_test_figures(random_rows(known_share=share), RECIPE, LEVEL, test_size=1000)
        for share in (0.1, 0.5, 0.9)
    )
    assert rare["expected_test_auc"] < balanced["expected_test_auc"] < frequent["expected_test_auc"]
    truth = expected_test_figures(
        random_rows(known_share=0.9, known_of_them=0.9), RECIPE, LEVEL, test_size=1000
    )
    assert frequent["expected_test_auc"] == pytest.approx(truth["expected_test_auc"], abs=0.015)
    low, high = frequent["expected_test_interval"]
    assert low < truth["expected_test_auc"] < high


def test_weights_count_only_where_the_test_has_drifted():
    weights = np.random.default_rng(1).lognormal(size=4000)
    plain, weighted = (random_rows(known_share=0.3, weights=each) for each in (None, weights))
    found = [
        expected_test_figures(rows, RECIPE, drift, test_size=1000)["expected_test_auc"]
        for rows, drift in ((plain, LEVEL), (weighted, LEVEL), (weighted, SHIFTED))
    ]
    assert found[0] == found[1] != found[2]


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0.1, 5)), min_size=1, max_size=20),
    st.sampled_from([0.0, 1.0]) | st.floats(1e-6, 1 - 1e-6),
)
def test_the_share_of_known_queries_is_the_tests(rows, share):
    rows += [(True, 1.0), (False, 2.0)]
    known, weights = (np.array(values) for values in zip(*rows, strict=True))
    found = known_query_weights(known, share, weights)
    assert found[known].sum() / found.sum() == pytest.approx(share)
    assert found.mean() == pytest.approx(1)
    if share > 0:
        np.testing.assert_allclose(
            found[known] / found[known].sum(), weights[known] / weights[known].sum()
        )


FIGURES = {
    "auc": 0.8,
    "test_interval": [0.75, 0.85],
    "weighted_auc": 0.7,
    "weighted_interval": [0.6, 0.8],
}
RANDOM = {
    "expected_test_auc": 0.9,
    "expected_test_interval": [0.88, 0.92],
    "test_share_with_known_query": 0.3,
}


@pytest.mark.parametrize(
    ("figures", "drift", "name", "interval", "why"),
    [
        (FIGURES, LEVEL, "auc", "test_interval", "hardly be told apart"),
        (FIGURES, SHIFTED, "weighted_auc", "weighted_interval", "can be told apart (AUC 0.700)"),
        (FIGURES | RANDOM, LEVEL, "expected_test_auc", "expected_test_interval", "30% of the"),
        (FIGURES | RANDOM, SHIFTED, "expected_test_auc", "expected_test_interval", "count for"),
    ],
)
def test_the_headline_is_the_figure_that_fits_the_test(figures, drift, name, interval, why):
    found = headline(figures, drift)
    assert found["name"] == name
    assert found["value"] == figures[name]
    assert found["interval"] == figures[interval]
    assert why in found["why"]


def test_drift_counts_with_its_whole_interval():
    unsure = {"auc": MATERIAL_DRIFT + 0.1, "interval": [MATERIAL_DRIFT - 0.01, 0.9]}
    assert headline(FIGURES, unsure)["name"] == "auc"
