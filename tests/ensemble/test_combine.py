import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from desmatch.ensemble.combine import (
    COMBINATIONS,
    LogitWeights,
    Mean,
    NaiveBayesOf,
    RankMean,
    Views,
    Weighted,
    combine_out_of_fold,
    fill_abstained,
    order_views,
)
from desmatch.metrics.roc import roc_auc
from tests.ensemble.simulated import simulated_views

LABELS = np.array([0, 1, 1, 0, 1, 0], np.int8)

logit_tables = hnp.arrays(
    np.float64, st.tuples(st.integers(1, 4), st.just(6)), elements=st.integers(-24, 24).map(float)
).map(lambda table: table / 4)

FIXED = {"probability": Mean("probability"), "logit": Mean("logit"), "rank": RankMean(),
         "naive-bayes": NaiveBayesOf(beta=0.5)}  # fmt: skip


def fit_apply(combination, logits, labels=LABELS):
    views = Views(logits)
    return combination.fit(views, labels).apply(views)


@given(logit_tables)
def test_means_are_those_of_numpy(logits):
    probs = expit(fit_apply(Mean("probability"), logits))
    np.testing.assert_allclose(probs, expit(logits).mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(fit_apply(Mean("logit"), logits), logits.mean(axis=0), atol=1e-12)
    ranks = expit(fit_apply(RankMean(), logits))
    expected = (rankdata(logits, axis=1) - 0.5).mean(axis=0) / 6
    np.testing.assert_allclose(ranks, expected, atol=1e-12)


def test_ranks_keep_the_order_of_rows_that_were_not_fitted():
    fitted = RankMean().fit(Views(np.array([[0.0, 1.0, 1.0, 3.0]])), LABELS[:4])
    logits = np.array([[-9.0, -2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 9.0]])
    assert (np.diff(fitted.apply(Views(logits))) > 0).all()


def test_very_sure_members_do_not_tie():
    logits = np.array([[40.0, 50.0, -40.0, -50.0, 800.0, 0.0]])
    for combination in (Mean("probability"), Mean("logit")):
        order = np.argsort(fit_apply(combination, logits))
        assert order.tolist() == [3, 2, 5, 0, 1, 4]


@settings(deadline=None, max_examples=25)
@given(logit_tables, st.sampled_from(list(COMBINATIONS)), st.randoms(use_true_random=False))
def test_the_order_of_members_changes_nothing(logits, name, random):
    if name == "naive-bayes-min-entropy":  # of z and -z either is the surest
        logits = np.abs(logits)
    order = random.sample(range(len(logits)), len(logits))
    there, back = (fit_apply(COMBINATIONS[name], each) for each in (logits, logits[order]))
    np.testing.assert_allclose(there, back, atol=1e-3)


@given(logit_tables, st.sampled_from(list(FIXED)), st.integers(-4, 4))
def test_a_constant_member_changes_no_order(logits, name, constant):
    with_constant = np.concatenate([logits, np.full((1, 6), float(constant))])
    there, back = (fit_apply(FIXED[name], each) for each in (logits, with_constant))
    gaps = [each[:, None] - each[None, :] for each in (there, back)]
    is_clear = np.abs(gaps[0]) > 1e-9
    assert (np.sign(gaps[0]) == np.sign(gaps[1]))[is_clear].all()


def test_a_constant_member_changes_no_order_of_fitted_weights():
    labels, logits = simulated_views(np.random.default_rng(0), num_rows=500, num_views=3)
    with_constant = np.concatenate([logits, np.full((1, 500), 2.0)])
    alone = fit_apply(LogitWeights(), logits, labels)
    beside = fit_apply(LogitWeights(), with_constant, labels)
    assert abs(roc_auc(labels, alone) - roc_auc(labels, beside)) < 1e-4


@pytest.mark.parametrize("name", list(COMBINATIONS))
def test_an_abstaining_member_is_ignored(name):
    labels, logits = simulated_views(np.random.default_rng(1), num_rows=300, num_views=3)
    views, rows = Views(logits), np.arange(0, 300, 7)
    fitted = COMBINATIONS[name].fit(views, labels)
    logits = logits.copy()
    logits[1, rows] = np.nan
    silent = fitted.apply(Views(logits))
    assert np.isfinite(silent).all()
    others = np.delete(np.arange(300), rows)
    np.testing.assert_array_equal(silent[others], fitted.apply(views)[others])
    if name in ("probability-mean", "logit-mean", "naive-bayes"):
        two = Views(logits[[0, 2]][:, rows])
        rule = COMBINATIONS[name] if name != "naive-bayes" else None
        expected = rule.fit(two, labels[rows]) if rule else fitted
        np.testing.assert_allclose(silent[rows], expected.apply(two), atol=1e-12)


def test_weights_are_those_of_scikit_learn_where_none_is_negative():
    labels, logits = simulated_views(np.random.default_rng(2), num_rows=800, num_views=3)
    fitted = LogitWeights(c=0.5).fit(Views(logits), labels)
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=5000).fit(logits.T, labels)
    assert (theirs.coef_ > 0).all()
    np.testing.assert_allclose(fitted.weights, theirs.coef_[0], atol=1e-3)
    assert fitted.intercept == pytest.approx(theirs.intercept_[0], abs=1e-3)


def test_no_weight_is_negative():
    rng = np.random.default_rng(3)
    labels, logits = simulated_views(rng, num_rows=800, num_views=1)
    opposite = -logits + rng.normal(size=800)
    weights = LogitWeights().fit(Views(np.concatenate([logits, opposite])), labels).weights
    assert weights[1] == 0 < weights[0]


@pytest.mark.parametrize("name", list(COMBINATIONS))
def test_a_rows_own_label_has_no_say(name):
    labels, logits = simulated_views(np.random.default_rng(4), num_rows=200, correlation=0.3)
    folds = np.arange(200) % 4
    before = combine_out_of_fold(COMBINATIONS[name], Views(logits), labels, folds)
    changed = np.where(folds == 2, 1 - labels, labels).astype(np.int8)
    after = combine_out_of_fold(COMBINATIONS[name], Views(logits), changed, folds)
    for there, here in zip(after, before, strict=True):
        np.testing.assert_array_equal(there[folds == 2], here[folds == 2])
    if name in ("logit-weights", "naive-bayes", "naive-bayes-attention"):
        assert (after.logits[folds != 2] != before.logits[folds != 2]).any()


def test_cross_fitting_is_a_loop_over_folds():
    labels, logits = simulated_views(np.random.default_rng(5), num_rows=90)
    folds = np.repeat([7, 1, 4], 30)
    found = combine_out_of_fold(LogitWeights(), Views(logits), labels, folds)
    here, there = slice(30, 60), np.r_[0:30, 60:90]
    fitted = LogitWeights().fit(Views(logits[:, there]), labels[there])
    expected = fitted.apply(Views(logits))
    np.testing.assert_allclose(found.logits[here], expected[here], atol=1e-12)
    np.testing.assert_array_equal(found.ranks[here], rankdata(expected)[here])


def test_rules_that_order_alike_in_every_fold_have_one_auc():
    labels, logits = simulated_views(np.random.default_rng(7), num_rows=300, correlation=0.5)
    folds = np.arange(300) % 5
    for name in ("naive-bayes", "naive-bayes-independent"):
        found = combine_out_of_fold(COMBINATIONS[name], Views(logits), labels, folds)
        assert len(np.unique(found.logits - logits.mean(axis=0))) > 5  # a rule a fold
        auc = roc_auc(labels, logits.mean(axis=0))
        assert abs(roc_auc(labels, found.ranks) - auc) < 1e-12


def test_a_known_prior_is_used():
    labels, logits = simulated_views(np.random.default_rng(6), num_rows=100)
    assert NaiveBayesOf(prior=0.25).fit(Views(logits), labels).rule.prior == 0.25


def test_views_are_members_orders_or_both():
    forward, backward = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0, 6.0], [9.0, 8.0]])
    assert order_views(forward, backward, of="members").tolist() == [[3, 4], [6, 6]]
    assert order_views(forward, backward, of="orders").tolist() == [[2, 3], [7, 7]]
    assert order_views(forward, backward, of="both").tolist() == [[1, 2], [3, 4], [5, 6], [9, 8]]


@given(hnp.arrays(np.float64, (3, 4), elements=st.one_of(st.just(np.nan), st.floats(-5, 5))))
def test_abstained_is_the_mean_of_the_others(values):
    values[0] = 1.0
    expected = np.where(np.isnan(values), np.nanmean(values, axis=0), values)
    np.testing.assert_allclose(fill_abstained(values), expected, atol=1e-12)


def test_wrong_arguments_are_refused():
    fitted = Weighted((0.5, 0.5))
    with pytest.raises(ValueError, match=r"expected logits \(2, B\), got \(3, 4\)"):
        fitted.apply(Views(np.zeros((3, 4))))
    with pytest.raises(ValueError, match="1 logits are infinite"):
        fitted.apply(Views(np.array([[0.0], [np.inf]])))
    with pytest.raises(ValueError, match="2 rows have no member's logit"):
        fitted.apply(Views(np.full((2, 2), np.nan)))
    with pytest.raises(ValueError, match=r"2 folds or more, got \[3\]"):
        combine_out_of_fold(Mean(), Views(np.zeros((1, 6))), LABELS, np.full(6, 3))
    with pytest.raises(ValueError, match="labels 0 and 1"):
        LogitWeights().fit(Views(np.zeros((1, 2))), np.array([1, 1]))
    with pytest.raises(ValueError, match="nothing to rank among"):
        RankMean().fit(Views(np.array([[0.0, 1.0], [np.nan, np.nan]])), LABELS[:2])
