import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from desmatch.metrics import intervals
from desmatch.metrics.intervals import (
    bootstrap_auc,
    effective_rows,
    paired_bootstrap,
    prediction_interval,
    weighted_auc,
)
from desmatch.metrics.roc import roc_auc

LEAST_COVERAGE = 0.87
"""Over 1,500 repeats 0.95 intervals of 80 components covered 0.93 to 0.95; 120 scatter by 0.02."""


@st.composite
def grouped_rows(draw):
    size = draw(st.integers(2, 30))
    values = st.integers(0, 5)
    labels = draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))
    scores = draw(st.lists(values, min_size=size, max_size=size))  # many ties
    groups = draw(st.lists(values, min_size=size, max_size=size))
    labels[:2] = [0, 1]
    return np.array(labels), np.array(scores, dtype=float), np.array(groups)


def binormal(rng, *, num_components, rows_each=6, shared=1.0):
    """Rows whose component shifts its positives up and its negatives down alike."""
    groups = np.repeat(np.arange(num_components), rows_each)
    labels = rng.permuted(np.arange(len(groups)) % 2)
    ease = 1.5 + shared * rng.normal(size=num_components)[groups]
    return labels, ease * (labels - 0.5) + rng.normal(size=len(groups)), groups


@given(grouped_rows(), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_weighted_auc_equals_the_auc_of_repeated_rows(rows, weights):
    labels, scores, groups = rows
    often = np.array(weights)[groups]
    weighted = weighted_auc(labels, scores, groups)(np.array(weights))
    repeated = np.repeat(labels, often), np.repeat(scores, often)
    if len(np.unique(repeated[0])) < 2:
        assert np.isnan(weighted)
    else:
        assert weighted == pytest.approx(roc_auc(*repeated))


@given(grouped_rows(), st.integers(0, 1000))
@settings(max_examples=30)
def test_intervals_are_ordered_and_do_not_see_a_monotone_transform(rows, seed):
    labels, scores, groups = rows
    interval = bootstrap_auc(
        labels, scores, groups, rng=np.random.default_rng(seed), num_samples=50
    )
    assert 0 <= interval.low <= interval.high <= 1
    changed = bootstrap_auc(
        labels, np.exp(scores) - 3, groups * 7 - 5, rng=np.random.default_rng(seed), num_samples=50
    )
    assert changed == interval


def test_interval_holds_the_auc_and_widens_with_the_level():
    rows = binormal(np.random.default_rng(0), num_components=60)
    narrow, wide = (
        bootstrap_auc(*rows, rng=np.random.default_rng(1), level=level) for level in (0.5, 0.99)
    )
    assert wide.low < narrow.low < roc_auc(*rows[:2]) < narrow.high < wide.high


def test_same_generator_state_gives_the_same_interval():
    rows = binormal(np.random.default_rng(0), num_components=20)
    first, second = (bootstrap_auc(*rows, rng=np.random.default_rng(5)) for _ in range(2))
    assert first == second


def test_components_cover_the_truth_where_rows_are_too_narrow():
    rng = np.random.default_rng(0)
    truth = roc_auc(*binormal(rng, num_components=30_000)[:2])
    covered, of_rows, widths = 0, 0, []
    repeats = 120
    for _ in range(repeats):
        labels, scores, groups = binormal(rng, num_components=80)
        by_component = bootstrap_auc(labels, scores, groups, rng=rng, num_samples=150)
        by_row = bootstrap_auc(labels, scores, np.arange(len(labels)), rng=rng, num_samples=150)
        covered += by_component.low <= truth <= by_component.high
        of_rows += by_row.low <= truth <= by_row.high
        widths.append((by_component.high - by_component.low) / (by_row.high - by_row.low))
    assert covered / repeats > LEAST_COVERAGE
    assert of_rows < covered
    assert np.mean(widths) > 1.15


@pytest.mark.parametrize("test_components", [40, 160])
def test_prediction_interval_covers_the_auc_of_another_test(test_components):
    rng = np.random.default_rng(0)
    covered, repeats = 0, 120
    for _ in range(repeats):
        rows = binormal(rng, num_components=80)
        test = binormal(rng, num_components=test_components)
        interval = prediction_interval(*rows, test_size=len(test[0]), rng=rng, num_samples=150)
        covered += interval.low <= roc_auc(*test[:2]) <= interval.high
    assert covered / repeats > LEAST_COVERAGE


def test_prediction_interval_narrows_to_the_validations_with_the_test():
    rows = binormal(np.random.default_rng(0), num_components=80)
    sizes = (60, 480, 100_000)
    small, same, large = (
        np.diff(prediction_interval(*rows, test_size=size, rng=np.random.default_rng(1)))[0]
        for size in sizes
    )
    validation = np.diff(bootstrap_auc(*rows, rng=np.random.default_rng(1)))[0]
    assert small > same > large
    assert same == pytest.approx(validation * np.sqrt(2), rel=0.1)
    assert large == pytest.approx(validation, rel=0.1)


def test_prediction_interval_stays_an_auc():
    labels = np.arange(40) % 2
    interval = prediction_interval(
        labels,
        labels + np.arange(40) / 50,
        np.arange(40),
        test_size=4,
        rng=np.random.default_rng(0),
    )
    assert interval == (1, 1)


def test_one_component_says_nothing():
    rows = np.array([0, 1, 1]), np.array([0.1, 0.2, 0.05]), np.full(3, 9)
    rng = np.random.default_rng(0)
    assert bootstrap_auc(*rows, rng=rng) == (0, 1)
    assert prediction_interval(*rows, test_size=3, rng=rng) == (0, 1)


def test_samples_without_a_class_are_drawn_again():
    labels = np.array([1] + [0] * 5)  # a third of the samples lack the one positive row
    scores = np.array([3.5, 1, 2, 3, 4, 5])
    interval = bootstrap_auc(labels, scores, np.arange(6), rng=np.random.default_rng(0))
    assert 0 <= interval.low < 0.6 < interval.high <= 1


def test_a_test_that_can_hardly_hold_both_classes_is_refused():
    labels = (np.arange(2000) == 0).astype(int)
    with pytest.raises(ValueError, match=r"200 samples of components only \d+ hold both classes"):
        prediction_interval(
            labels,
            np.arange(2000.0),
            np.arange(2000),
            test_size=2,
            rng=np.random.default_rng(0),
            num_samples=10,
        )


@pytest.mark.parametrize("level", [0, 1, 95])
def test_level_is_a_share(level):
    rows = np.array([0, 1]), np.array([0.1, 0.2]), np.array([0, 1])
    with pytest.raises(ValueError, match=f"level={level}: expected a share"):
        bootstrap_auc(*rows, rng=np.random.default_rng(0), level=level)


def test_a_missing_class_is_refused():
    with pytest.raises(ValueError, match="needs labels 0 and 1"):
        bootstrap_auc(np.ones(3, int), np.arange(3.0), np.arange(3), rng=np.random.default_rng(0))


def test_rows_without_a_component_are_refused():
    with pytest.raises(ValueError, match=r"a component for each of 2 rows, got \(3,\)"):
        bootstrap_auc(np.array([0, 1]), np.arange(2.0), np.arange(3), rng=np.random.default_rng(0))


@given(grouped_rows(), st.lists(st.integers(1, 3), min_size=30, max_size=30))
def test_row_weights_equal_repeated_rows(rows, often):
    labels, scores, groups = rows
    often = np.array(often[: len(labels)])
    weighted = weighted_auc(labels, scores, groups, often.astype(float))(np.ones(6, int))
    repeated = roc_auc(np.repeat(labels, often), np.repeat(scores, often))
    assert weighted == pytest.approx(repeated)
    assert roc_auc(labels, scores, often.astype(float)) == pytest.approx(repeated)


def test_a_difference_is_that_of_both_aucs_over_the_same_draws():
    rng = np.random.default_rng(3)
    labels = (rng.random(120) < 0.4).astype(np.int8)
    scores, others = labels + rng.normal(0, 1.0, 120), labels + rng.normal(0, 0.7, 120)
    groups = rng.integers(0, 50, 120)
    paired = paired_bootstrap(
        labels, scores, others, groups, rng=np.random.default_rng(5), num_samples=300
    )
    met = dict.fromkeys(groups[np.argsort(scores)])  # components in the order of the scores
    numbers = np.array([list(met).index(group) for group in groups])
    quantiles = stats.poisson.ppf((np.arange(2**16) + 0.5) / 2**16, 1.0)
    draws, differences = np.random.default_rng(5), []
    for _ in range(300):
        often = quantiles[draws.integers(2**16, size=len(met), dtype=np.uint16)].astype(int)
        rows = np.repeat(np.arange(120), often[numbers])
        differences.append(
            roc_auc_score(labels[rows], others[rows]) - roc_auc_score(labels[rows], scores[rows])
        )
    sizes = np.bincount(numbers)
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    tail = stats.norm.cdf(stats.t.ppf(0.025, effective - 1) * np.sqrt(effective / (effective - 1)))
    np.testing.assert_allclose(
        paired.interval, np.quantile(differences, [tail, 1 - tail]), atol=1e-12
    )
    signs = np.sign(np.round(differences, 12))
    assert paired.chance_second_is_better == pytest.approx(np.mean((signs + 1) / 2))


def test_a_run_beside_itself_differs_by_nothing():
    rng = np.random.default_rng(0)
    labels, scores = (rng.random(60) < 0.5).astype(np.int8), rng.random(60)
    paired = paired_bootstrap(labels, scores, scores, np.arange(60), rng=rng, num_samples=50)
    assert paired == ((0.0, 0.0), 0.5)
    one = paired_bootstrap(labels, scores, scores, np.zeros(60, int), rng=rng, num_samples=50)
    assert one == ((-1.0, 1.0), 0.5)


def test_components_are_drawn_by_a_poisson_law():
    rng = np.random.default_rng(0)
    components = np.repeat(np.arange(1000), 3)
    draw = intervals._uniform_draws(components, 6000)
    drawn = np.stack([draw(rng).copy() for _ in range(100)])
    assert drawn.mean() == pytest.approx(2, abs=0.02)
    assert drawn.var() == pytest.approx(2, abs=0.04)
    assert (drawn * 3).sum(axis=1).mean() == pytest.approx(6000, rel=0.01)


def test_weighted_components_are_drawn_as_often_as_their_rows_weigh():
    rng = np.random.default_rng(0)
    components = np.repeat(np.arange(3), [1, 2, 1])
    weights = np.array([1.0, 0.0, 3.0])
    draw = intervals._weighted_draws(components, 400, weights)
    drawn = np.stack([draw(rng) for _ in range(2000)]).mean(axis=0)
    np.testing.assert_allclose(drawn, [100, 0, 300], rtol=0.02)


def test_equal_weights_weigh_nothing():
    rows = binormal(np.random.default_rng(0), num_components=80)
    plain, weighted = (
        prediction_interval(*rows, test_size=400, rng=np.random.default_rng(1), weights=weights)
        for weights in (None, np.full(480, 7.0))
    )
    np.testing.assert_allclose(plain, weighted, atol=0.01)


@pytest.mark.parametrize("test_components", [60, 400])
def test_weighted_prediction_interval_covers_a_test_of_another_mixture(test_components):
    """Easy and hard components, of which the test has other shares than the validation."""
    rng = np.random.default_rng(0)

    def mixture(num_components, easy_share):
        groups = np.repeat(np.arange(num_components), 4)
        easy = (rng.random(num_components) < easy_share)[groups]
        labels = rng.permuted(np.arange(len(groups)) % 2)
        scores = np.where(easy, 3.0, 0.5) * labels + rng.normal(size=len(groups))
        return labels, scores, groups, np.where(easy, 0.8 / 0.3, 0.2 / 0.7)

    covered, of_plain, repeats = 0, 0, 100
    for _ in range(repeats):
        *rows, weights = mixture(120, 0.3)
        truth = roc_auc(*mixture(test_components, 0.8)[:2])
        size = 4 * test_components
        low, high = prediction_interval(
            *rows, test_size=size, weights=weights, rng=rng, num_samples=120
        )
        covered += low <= truth <= high
        low, high = prediction_interval(*rows, test_size=size, rng=rng, num_samples=120)
        of_plain += low <= truth <= high
    assert covered / repeats > LEAST_COVERAGE
    assert of_plain / repeats < 0.5


def test_weights_widen_the_interval():
    rows = binormal(np.random.default_rng(0), num_components=200)
    weights = np.random.default_rng(1).lognormal(0, 1.2, len(rows[0]))
    plain, weighted = (
        np.diff(bootstrap_auc(*rows, rng=np.random.default_rng(2), weights=each))[0]
        for each in (None, weights)
    )
    assert weighted > 1.2 * plain
    assert effective_rows(weights) < len(weights) / 2


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20).filter(any))
def test_effective_rows_lie_between_one_and_all(weights):
    weights = np.array(weights, dtype=float)
    assert 1 - 1e-9 <= effective_rows(weights) <= np.count_nonzero(weights) + 1e-9
    assert effective_rows(np.full(9, 0.3)) == pytest.approx(9)


@given(st.floats(0.001, 50))
@settings(max_examples=5)
def test_quantiles_equal_scipys(rate):
    at = np.arange(0, 2**16, 997)
    expected = stats.poisson.ppf((at + 0.5) / 2**16, rate)
    np.testing.assert_array_equal(intervals._poisson_quantiles(rate)[at], expected)


@pytest.mark.parametrize("size", [4, 10, 1000])
def test_the_interval_of_a_mean_is_expanded_to_students(size):
    """The bootstrap's deviation of a mean lacks sqrt((n - 1) / n), and its law is not Student's."""
    values = stats.norm.ppf((np.arange(100_000) + 0.5) / 100_000) * np.sqrt((size - 1) / size)
    low, high = intervals._central(values, 0.95, size)
    reach = stats.t.ppf(0.975, size - 1)
    np.testing.assert_allclose([low, high], [-reach, reach], rtol=0.02)
