from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import approx_fprime
from scipy.special import expit, log_expit, softmax
from scipy.stats import norm
from sklearn.metrics import log_loss

from desmatch.ensemble.naive_bayes import (
    NaiveBayes,
    fit_attention,
    fit_beta,
    log_loss_of_logits,
    prior_logit,
    shift_prior,
)
from desmatch.metrics.roc import roc_auc
from tests.ensemble.simulated import PRIOR, simulated_views

POOLS = ["mean", "max", "min-entropy", "attention"]

some_logits = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(1, 6)),
    elements=st.one_of(st.just(np.nan), st.floats(-8, 8)),
)


def by_loop(rule, logits):
    """One row at a time, in probabilities of both labels."""
    combined = []
    for row in logits.T:
        views = row[~np.isnan(row)]
        if not len(views):
            combined.append(rule.prior)
            continue
        of_label = np.stack([log_expit(-views), log_expit(views)])  # log p(y | S_k)
        match rule.pool:
            case "mean":
                pooled = of_label.mean(axis=1)
            case "max":
                pooled = of_label.max(axis=1)
            case "min-entropy":
                entropy = -(np.exp(of_label) * of_label).sum(axis=0)
                pooled = of_label[:, entropy.argmin()]
            case "attention":
                pooled = of_label @ softmax(rule.slopes[0] * np.abs(views))
        beta = len(views) - 1 if rule.beta is None else rule.beta
        prior = np.array([log_expit(-rule.prior), log_expit(rule.prior)])
        no, yes = (1 + beta) * pooled - beta * prior
        combined.append(yes - no)
    return np.array(combined)


@settings(deadline=None)
@given(some_logits, st.sampled_from(POOLS), st.sampled_from([None, 0.0, 0.25, 3.0]))
def test_the_formula_is_that_of_both_labels_probabilities(logits, pool, beta):
    if pool == "min-entropy":  # entropies of nearly equal views cannot be told apart
        logits = np.round(logits) + np.arange(len(logits))[:, None] / 10
    rule = NaiveBayes(prior=-0.7, pool=pool, beta=beta, slopes=(0.5,))
    np.testing.assert_allclose(rule.apply(logits), by_loop(rule, logits), atol=1e-6)


def test_independent_views_give_the_exact_posterior():
    rng = np.random.default_rng(0)
    strengths = np.array([0.5, 1.0, 1.5])
    labels = (rng.random(300) < 0.3).astype(np.int8)
    seen = strengths[:, None] * labels + rng.normal(size=(3, 300))
    likelihood = np.stack(
        [norm.pdf(seen), norm.pdf(seen - strengths[:, None])]
    )  # (labels, views, rows)
    prior = np.array([0.7, 0.3])
    single = prior[:, None, None] * likelihood
    logits = np.log(single[1] / single[0])
    joint = prior[:, None] * likelihood.prod(axis=1)
    exact = joint[1] / joint.sum(axis=0)
    posterior = expit(NaiveBayes(prior=PRIOR).apply(logits))
    np.testing.assert_allclose(posterior, exact, atol=1e-6)


@pytest.mark.parametrize("beta", [None, 0.0, 0.5, 4.0])
def test_beta_cannot_move_the_auc_of_as_many_views_everywhere(beta):
    labels, logits = simulated_views(np.random.default_rng(1))
    combined = NaiveBayes(prior=PRIOR, beta=beta).apply(logits)
    assert abs(roc_auc(labels, combined) - roc_auc(labels, logits.mean(axis=0))) < 1e-12


def test_counting_views_moves_the_auc_where_their_number_differs():
    rng = np.random.default_rng(2)
    labels, logits = simulated_views(rng, num_rows=20_000)
    logits[np.arange(5)[:, None] >= rng.integers(1, 6, 20_000)] = np.nan
    exact = NaiveBayes(prior=PRIOR).apply(logits)
    mean = NaiveBayes(prior=PRIOR, beta=0).apply(logits)
    assert roc_auc(labels, exact) - roc_auc(labels, mean) > 0.01


@pytest.mark.parametrize("correlation", [0.0, 0.6])
@pytest.mark.parametrize("pool", ["mean", "max", "min-entropy"])
def test_a_fitted_beta_is_no_worse_on_other_rows_than_none(correlation, pool):
    rng = np.random.default_rng(3)
    labels, logits = simulated_views(rng, correlation=correlation)
    others, other_logits = simulated_views(rng, correlation=correlation)
    rule = NaiveBayes(prior=PRIOR, pool=pool, beta=0)
    fitted = fit_beta(rule, logits, labels)
    ours, theirs = (log_loss_of_logits(others, each.apply(other_logits)) for each in (fitted, rule))
    assert ours <= theirs


def test_a_fitted_beta_is_the_best_of_a_grid():
    labels, logits = simulated_views(np.random.default_rng(4), correlation=0.6)
    fitted = fit_beta(NaiveBayes(prior=PRIOR), logits, labels)
    grid = np.linspace(-1, 5, 601)
    losses = [
        log_loss_of_logits(labels, replace(fitted, beta=float(beta)).apply(logits)) for beta in grid
    ]
    assert fitted.beta == pytest.approx(grid[np.argmin(losses)], abs=0.01)
    assert fitted.beta == pytest.approx(0.47, abs=0.1)  # 5 / (1 + 4 * 0.6) - 1


def test_independent_views_are_found_to_be_independent():
    labels, logits = simulated_views(np.random.default_rng(5), num_rows=20_000)
    assert fit_beta(NaiveBayes(prior=PRIOR), logits, labels).beta == pytest.approx(4, abs=0.3)


def test_attention_fits_at_least_as_well_as_the_mean_and_finds_the_surest_views():
    rng = np.random.default_rng(6)
    strength = rng.uniform(0, 2, (5, 8000))
    labels, logits = simulated_views(rng, num_rows=8000, correlation=0.8, strength=strength)
    mean = fit_beta(NaiveBayes(prior=PRIOR), logits, labels)
    fitted = fit_attention(logits, labels, prior=PRIOR)
    losses = [log_loss_of_logits(labels, each.apply(logits)) for each in (mean, fitted)]
    assert losses[1] < losses[0]
    assert fitted.slopes[0] > 0.1
    assert roc_auc(labels, fitted.apply(logits)) > roc_auc(labels, mean.apply(logits))


def test_attention_is_at_a_minimum():
    rng = np.random.default_rng(7)
    labels, logits = simulated_views(rng, num_rows=1000, correlation=0.5)
    logits[0, :300] = np.nan
    features = rng.normal(size=(1, *logits.shape)) + (np.arange(5) == 2)[:, None]
    fitted = fit_attention(logits, labels, prior=PRIOR, features=features)

    def loss(parameters):
        rule = replace(fitted, beta=parameters[0], slopes=tuple(parameters[1:]))
        return log_loss_of_logits(labels, rule.apply(logits, features))

    gradient = approx_fprime(np.array([fitted.beta, *fitted.slopes]), loss, 1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-3)


def test_attention_without_slope_is_the_mean_and_with_a_steep_one_the_surest_view():
    _, logits = simulated_views(np.random.default_rng(8), num_rows=50)
    flat, steep = (NaiveBayes(prior=0.0, pool="attention", slopes=(s,)) for s in (0.0, 1e7))
    np.testing.assert_allclose(flat.pooled(logits), logits.mean(axis=0), atol=1e-12)
    surest = NaiveBayes(prior=0.0, pool="min-entropy").pooled(logits)
    np.testing.assert_allclose(steep.pooled(logits), surest, atol=1e-9)


@settings(deadline=None)
@given(some_logits, st.sampled_from(POOLS), st.randoms(use_true_random=False))
def test_the_order_of_views_and_those_that_abstain_change_nothing(logits, pool, random):
    if pool == "min-entropy":  # of z and -z either is the surest
        logits = np.abs(logits)
    rule = NaiveBayes(prior=0.3, pool=pool)
    expected = rule.apply(logits)
    order = random.sample(range(len(logits)), len(logits))
    silent = np.full((1, logits.shape[1]), np.nan)
    found = rule.apply(np.concatenate([logits[order], silent]))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.isfinite(found).all()


@settings(deadline=None)
@given(some_logits, st.sampled_from(["mean", "max", "attention"]))
def test_exchanging_the_labels_changes_the_sign(logits, pool):
    rule = NaiveBayes(prior=0.8, pool=pool, beta=0.5)
    mirrored = replace(rule, prior=-0.8).apply(-logits)
    np.testing.assert_allclose(mirrored, -rule.apply(logits), atol=1e-9)


@pytest.mark.parametrize("pool", POOLS)
def test_a_row_without_views_has_the_prior(pool):
    rule = NaiveBayes(prior=0.4, pool=pool)
    assert rule.apply(np.full((2, 1), np.nan)) == pytest.approx([0.4])


def test_a_corrected_prior_lowers_the_log_loss():
    rng = np.random.default_rng(9)
    labels, logits = simulated_views(rng, num_views=1, prior=0.0)
    learned = logits[0] + PRIOR  # what a model says that learned a share of 0.3
    corrected = shift_prior(learned, prior=PRIOR, new_prior=0.0)
    assert log_loss_of_logits(labels, corrected) < log_loss_of_logits(labels, learned) - 0.05
    np.testing.assert_allclose(corrected, logits[0], atol=1e-12)


def test_views_may_be_corrected_before_or_after():
    _, logits = simulated_views(np.random.default_rng(10), num_rows=50)
    after = shift_prior(NaiveBayes(prior=PRIOR).apply(logits), prior=PRIOR, new_prior=1.0)
    before = NaiveBayes(prior=1.0).apply(shift_prior(logits, prior=PRIOR, new_prior=1.0))
    np.testing.assert_allclose(before, after, atol=1e-12)


@settings(max_examples=30)
@given(hnp.arrays(np.float64, 7, elements=st.floats(-15, 15)))
def test_the_log_loss_is_scikit_learns(logits):
    labels = np.array([0, 1, 1, 0, 1, 0, 0])
    expected = log_loss(labels, expit(logits))
    assert log_loss_of_logits(labels, logits) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_prior_logit():
    assert prior_logit(np.array([0, 0, 0, 1])) == pytest.approx(np.log(1 / 3))
    with pytest.raises(ValueError, match="labels 0 and 1, got a share of 1"):
        prior_logit(np.array([1, 1]))


def test_wrong_arguments_are_refused():
    rule = NaiveBayes(prior=0.0, pool="attention")
    with pytest.raises(ValueError, match="1 logits are infinite"):
        rule.apply(np.array([[np.inf, 0.0]]))
    with pytest.raises(ValueError, match=r"of one view or more, got \(3,\)"):
        rule.apply(np.zeros(3))
    with pytest.raises(ValueError, match="2 inputs of attention, but 1 slopes"):
        rule.apply(np.zeros((2, 3)), np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="expected features"):
        rule.apply(np.zeros((2, 3)), np.zeros((1, 3, 3)))
