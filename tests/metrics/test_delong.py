import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from desmatch.metrics.delong import delong_covariance, delong_interval, delong_test


@st.composite
def two_models(draw):
    size = draw(st.integers(4, 25))
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    labels[:4] = [0, 1, 0, 1]
    values = st.lists(st.integers(-3, 3), min_size=size, max_size=size)  # many ties
    return np.array(labels), np.array([draw(values), draw(values)], dtype=float)


def slow_covariance(labels, scores):
    """The definition, pair by pair: DeLong et al. 1988, equations 4 to 6."""
    positives, negatives = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    wins = np.zeros((len(scores), len(positives), len(negatives)))
    for model, each in enumerate(scores):
        for i, positive in enumerate(positives):
            for j, negative in enumerate(negatives):
                gap = each[positive] - each[negative]
                wins[model, i, j] = 1.0 if gap > 0 else 0.5 if gap == 0 else 0.0
    covariance = np.zeros((len(scores), len(scores)))
    for r in range(len(scores)):
        for s in range(len(scores)):
            for axis, size in ((2, len(positives)), (1, len(negatives))):
                first, second = wins[r].mean(axis - 1), wins[s].mean(axis - 1)
                deviations = (first - wins[r].mean()) * (second - wins[s].mean())
                covariance[r, s] += deviations.sum() / (size - 1) / size
    return wins.mean(axis=(1, 2)), covariance


@given(two_models())
def test_covariance_equals_a_loop_over_all_pairs_of_rows(rows):
    labels, scores = rows
    aucs, covariance = delong_covariance(labels, scores)
    slow_aucs, slow = slow_covariance(labels, scores)
    np.testing.assert_allclose(aucs, slow_aucs)
    np.testing.assert_allclose(aucs, [roc_auc_score(labels, each) for each in scores])
    np.testing.assert_allclose(covariance, slow, atol=1e-15)


@given(two_models())
def test_the_test_follows_from_the_covariance(rows):
    labels, scores = rows
    (first, second), covariance = slow_covariance(labels, scores)
    found = delong_test(labels, *scores)
    assert found.difference == pytest.approx(second - first)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    assert found.standard_error == pytest.approx(np.sqrt(max(variance, 0)), abs=1e-7)
    assert found.interval.low <= found.difference <= found.interval.high
    back = delong_test(labels, *scores[::-1])
    assert back.p_value == pytest.approx(found.p_value)
    assert back.difference == -found.difference


def binormal(rng, size, ease):
    labels = rng.permuted(np.arange(size) % 2)
    return labels, ease * labels + rng.normal(size=size)


def test_variance_is_that_of_many_samples():
    rng = np.random.default_rng(0)
    samples = [binormal(rng, 300, 1.0) for _ in range(400)]
    aucs = [roc_auc_score(*each) for each in samples]
    claimed = np.mean([delong_covariance(labels, s[None])[1][0, 0] for labels, s in samples])
    assert claimed == pytest.approx(np.var(aucs, ddof=1), rel=0.2)


def test_p_values_are_uniform_where_models_are_equally_good():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(400):
        labels, scores = binormal(rng, 200, 1.0)
        noise = rng.normal(size=(2, 200))
        p_values.append(delong_test(labels, scores + noise[0], scores + noise[1]).p_value)
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.05)


def test_a_better_model_is_found_better():
    labels, scores = binormal(np.random.default_rng(0), 2000, 1.0)
    worse = scores + np.random.default_rng(1).normal(size=2000)
    found = delong_test(labels, worse, scores)
    assert found.difference > 0
    assert found.p_value < 1e-6
    assert found.interval.low > 0


def test_scores_in_the_same_order_differ_by_nothing():
    labels, scores = binormal(np.random.default_rng(0), 40, 1.0)
    assert delong_test(labels, scores, np.exp(scores)) == (0, 0, 1, (0, 0))


def test_an_interval_stays_an_auc():
    assert delong_interval(np.array([0, 0, 1, 1]), np.array([1.0, 2.0, 3.0, 4.0])) == (1, 1)
    low, high = delong_interval(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 4.0]))
    assert 0 <= low < 0.75 < high == 1


def test_a_class_of_one_row_has_no_variance():
    with pytest.raises(ValueError, match="two rows or more of each class, got 1 positive and 2"):
        delong_interval(np.array([0, 1, 0]), np.arange(3.0))


@pytest.mark.parametrize("level", [0, 1])
def test_level_is_a_share(level):
    with pytest.raises(ValueError, match="expected a share"):
        delong_interval(np.array([0, 1, 0, 1]), np.arange(4.0), level=level)
