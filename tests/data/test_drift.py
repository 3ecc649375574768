from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from desmatch.data.drift import (
    LARGEST_WEIGHT,
    effective_share,
    importance_weights,
    measure_drift,
    pair_degree,
)
from desmatch.data.features import row_features
from desmatch.data.graph import build_graph, number_texts
from desmatch.data.sample import sample_pairs
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.recipe import DataConfig


@pytest.fixture(scope="module")
def toy_rows():
    """Features, both texts' numbers and labels of 3,000 rows of the toy language."""
    pairs, labels = zip(*islice(sample_pairs(3), 3000), strict=True)
    texts = [[pair[side] for pair in pairs] for side in (0, 1)]
    features = row_features(*texts, fit_vocabulary({}, DataConfig()))
    return features, number_texts(texts), np.array(labels)


def drift_of(toy_rows, labelled, test, seed=0):
    features, (a, b), _ = toy_rows
    rows = np.concatenate([labelled, test])
    _, joint = np.unique(np.concatenate([a[rows], b[rows]]), return_inverse=True)
    return measure_drift(
        {name: values[labelled] for name, values in features.items()},
        {name: values[test] for name, values in features.items()},
        build_graph(*np.split(joint, 2)),
        rng=np.random.default_rng(seed),
    )


def parts_of(toy_rows, *, longer):
    """Whole components for both sides; of the test's, longer rows are drawn more often."""
    features, (a, b), _ = toy_rows
    rng = np.random.default_rng(5)
    component = build_graph(a, b).pair_component
    is_test = (rng.random(component.max() + 1) < 0.4)[component]
    length = features["length"]
    chance = 1 / (1 + np.exp(-longer * (length - length.mean())))
    drawn = rng.random(len(length)) < (chance if longer else 1)
    return np.flatnonzero(~is_test), np.flatnonzero(is_test & drawn)


def test_weights_bring_a_mean_nearer_to_that_of_a_test_with_longer_texts(toy_rows):
    features, _, labels = toy_rows
    labelled, test = parts_of(toy_rows, longer=0.5)
    drift = drift_of(toy_rows, labelled, test)
    assert drift.auc > 0.6
    assert drift.features[0].name == "length"
    assert drift.features[0].auc == pytest.approx(
        roc_auc_score(
            np.repeat([0, 1], [len(labelled), len(test)]),
            features["length"][np.concatenate([labelled, test])],
        )
    )
    importance = {each.name: each.importance for each in drift.features}
    assert importance["length"] > 0.02
    assert importance["oov_share"] == 0  # it is 1 in all rows here
    error_of_counting = np.abs(labels - features["overlap"])
    for quantity, part in ((features["length"], 0.5), (error_of_counting, 1)):
        truth = quantity[test].mean()
        plain = quantity[labelled].mean()
        weighted = (drift.weights * quantity[labelled]).mean()
        assert abs(weighted - truth) < part * abs(plain - truth)


def test_without_drift_weights_hardly_cost_rows(toy_rows):
    drift = drift_of(toy_rows, *parts_of(toy_rows, longer=0))
    assert effective_share(drift.weights) > 0.98
    assert abs(drift.auc - 0.5) < 0.05


def test_the_same_generator_gives_the_same_weights(toy_rows):
    parts = [rows[:200] for rows in parts_of(toy_rows, longer=1)]
    one, two = (drift_of(toy_rows, *parts, seed=7) for _ in range(2))
    np.testing.assert_array_equal(one.weights, two.weights)
    assert one.features == two.features


def test_no_row_is_scored_by_a_discriminator_that_saw_its_texts():
    rng = np.random.default_rng(0)
    component = np.repeat(np.arange(200), 5)  # stars of five rows, each with a number of its own
    is_test = np.sort(rng.integers(0, 2, 200))[component]
    number = rng.permutation(200)[component].astype(np.float64)
    leaf = 200 + np.arange(1000)
    drift = measure_drift(
        {"number": number[is_test == 0]},
        {"number": number[is_test == 1]},
        build_graph(component, leaf),
        rng=rng,
    )
    assert abs(drift.auc - 0.5) < 0.12  # a model that had seen a row of the star would know all
    for group in np.unique(drift.groups):
        assert len(np.unique(drift.is_test[drift.groups == group])) == 1


@pytest.mark.parametrize("b", [[2, 2, 2, 2], [4, 5, 6, 7]])
def test_too_few_rows_to_tell_leave_all_weights_alike(b):
    drift = measure_drift(
        {"length": np.array([1.0, 2.0, 3.0])},
        {"length": np.array([9.0])},
        build_graph(np.array([0, 1, 2, 3]), np.array(b)),
        rng=np.random.default_rng(0),
    )
    np.testing.assert_array_equal(drift.weights, np.ones(3))
    assert drift.auc == 0.5
    assert drift.features[0].labelled_mean == 2


logits = arrays(np.float64, st.integers(1, 60), elements=st.floats(-8, 8))


@given(logits, st.floats(0, 1))
def test_weights_have_mean_one_and_keep_the_order_of_the_odds(values, power):
    weights = importance_weights(values, power=power)
    assert weights.mean() == pytest.approx(1)
    assert (np.diff(weights[np.argsort(values, kind="stable")]) >= 0).all()
    assert 1 / len(values) - 1e-9 <= effective_share(weights) <= 1 + 1e-9


def test_weights_are_the_flattened_odds():
    odds = np.array([0.5, 1.0, 3.0])
    expected = odds**0.5 / (odds**0.5).mean()
    np.testing.assert_allclose(importance_weights(np.log(odds), power=0.5), expected)


@given(logits)
def test_no_row_counts_for_more_than_the_largest_weight(values):
    weights = importance_weights(values, power=1)
    assert weights.max() <= LARGEST_WEIGHT * (1 + 1e-6)
    uncut = weights < weights.max()
    np.testing.assert_allclose(  # below the cut-off the ratios are those of the odds
        np.log(weights[uncut]) - np.log(weights.min()), values[uncut] - values.min(), atol=1e-6
    )


pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=20)


@given(pairs)
def test_a_degree_is_the_number_of_pairs_around_the_busier_text(rows):
    a, b = np.array(rows).T
    degree = [
        max(sum((x == text) + (y == text) for x, y in rows) for text in pair) for pair in rows
    ]
    np.testing.assert_array_equal(pair_degree(build_graph(a, b)), degree)
