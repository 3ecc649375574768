"""What the articles say of norms, residuals and starts, measured by the code of the experiments."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from desmatch.recipe_training import TrainingConfig
from desmatch.schema import Special

ARTICLES = Path(__file__).parents[2] / "benchmarks" / "articles"
SEEDS = range(3)


@pytest.fixture
def experiment(monkeypatch):
    """Import an experiment as its script finds it: `experiment("norms")`."""
    monkeypatch.syspath_prepend(ARTICLES)
    return importlib.import_module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheme", "at_least", "at_most"), [("bert", 0.5, 1.0), ("arithmetic", 0.0, 0.05)]
)
def test_a_small_start_keeps_the_straight_path_of_bert_base(experiment, scheme, at_least, at_most):
    probes = experiment("probes")
    model = probes.fresh_model(layers=12, width=768, initialization=scheme)
    left = experiment("initialization").straight_path(model, probes.random_ids(4, 32))
    assert at_least <= left <= at_most


def test_the_straight_path_is_that_of_the_measured_variances(experiment):
    probes = experiment("probes")
    model, ids = probes.fresh_model(layers=2), probes.random_ids()
    layer = model.encoder.layers[1].feed_forward
    seen = {}
    layer.register_forward_hook(lambda _, inputs, y: seen.update(x=inputs[0], y=y))
    variances = probes.branch_variances(model, ids)
    assert len(variances) == 4
    expected = seen["y"].var(dim=-1).mean() / seen["x"].var(dim=-1).mean()
    assert variances[-1] == pytest.approx(expected.item())
    left = experiment("initialization").straight_path(model, ids)
    assert left == pytest.approx(math.prod((1 + each) ** -0.5 for each in variances))


def mean_change(experiment, kind, depth, seeds=SEEDS):
    residuals = experiment("residuals")
    build = residuals.KINDS[kind].build
    return np.mean(
        [residuals.change_by_one_step(build(layers=depth, seed=seed), seed=seed) for seed in seeds]
    )


def test_one_step_changes_a_deepnorm_model_least_and_more_with_depth(experiment):
    kinds = ("deepnorm, rule for Adam", "deepnorm", "pre", "post")
    for depth in (6, 12):
        changes = [mean_change(experiment, kind, depth, range(2)) for kind in kinds]
        assert changes == sorted(changes)
        assert changes[1] < 0.3 < changes[2]
    assert mean_change(experiment, "deepnorm", 6) < mean_change(experiment, "deepnorm", 24) < 0.5


@pytest.mark.slow
def test_one_step_throws_the_output_of_a_deep_post_norm_model_away(experiment):
    assert mean_change(experiment, "post", 48, range(6)) >= 1.0
    for kind in ("deepnorm", "deepnorm, rule for Adam"):
        assert mean_change(experiment, kind, 48, range(6)) <= 0.5


@pytest.mark.parametrize("rule", ["paper", "adam"])
def test_a_post_norm_model_of_any_depth_becomes_deepnorm(experiment, rule):
    assert experiment("residuals").conversion_gap(rule, layers=24) <= 1e-4


def test_parameter_gradients_are_proportional_to_epsilon(experiment):
    assert experiment("residuals").gradient_slope(layers=6) == pytest.approx(1, abs=0.05)


def test_pre_norm_layers_change_less_and_less_and_post_norm_layers_alike(experiment):
    norms = experiment("norms")
    pre, post = ([norms.start_states(norm, seed) for seed in SEEDS] for norm in ("pre", "post"))
    assert np.mean([norms.depth_slope(each) for each in pre]) <= -0.4
    assert abs(np.mean([norms.depth_slope(each) for each in post])) < 0.1
    assert np.mean([norms.last_cosine(each) for each in pre]) > 0.98
    assert np.mean([norms.last_cosine(each) for each in post]) < 0.9


def test_the_slope_of_a_sum_of_independent_terms_is_minus_one_half(experiment):
    terms = torch.randn(400, 50, 200, generator=torch.Generator().manual_seed(0))
    slope = experiment("norms").depth_slope(terms.cumsum(dim=0))
    assert slope == pytest.approx(-0.5, abs=0.02)


def test_an_interval_of_two_equal_models_is_nothing_wide(experiment):
    norms = experiment("norms")
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 200).astype(np.int8), np.arange(200) // 2
    rows, ones = np.arange(200), np.ones(200)
    scored = [
        norms.Scored(rows, 0 * rows, labels, groups, ones, scores, scores, scores, scores)
        for scores in (labels + rng.normal(size=200), rng.normal(size=200))
    ]
    assert norms.rows_interval([norms.Rivals(scored[0], scored[0])], num_samples=20) == (0, 0)
    better = norms.Rivals(*scored)
    low, high = norms.rows_interval([better, better], num_samples=200)
    assert 0 < low < better.difference < high
    assert norms.seeds_interval([0.1, 0.3, 0.2]) == pytest.approx((0.2 - 0.2484, 0.2 + 0.2484),
                                                                  abs=1e-4)  # fmt: skip


def test_words_of_the_toy_language_are_equally_likely_everywhere(experiment):
    chain = experiment("toy").draw_chain(30)
    np.testing.assert_allclose(chain.transitions.sum(axis=0), 1)
    np.testing.assert_allclose(chain.transitions.sum(axis=1), 1)
    assert chain.unigram_entropy == pytest.approx(math.log(30))
    texts = chain.texts(40_000, 3, np.random.default_rng(0)) - len(Special)
    counts = np.bincount(texts[:, 2], minlength=30) / len(texts)
    np.testing.assert_allclose(counts, 1 / 30, atol=0.005)
    followed = np.zeros((30, 30))
    np.add.at(followed, (texts[:, 0], texts[:, 1]), 30 / len(texts))
    np.testing.assert_allclose(followed, chain.transitions, atol=0.06)


def test_the_cloze_entropy_is_the_loss_of_who_knows_both_neighbours(experiment):
    chain = experiment("toy").draw_chain(5)
    table = chain.transitions
    loss = 0.0
    for before, word, after in np.ndindex(5, 5, 5):
        joint = table[before, word] * table[word, after] / 5
        if joint:
            loss -= joint * math.log(joint / ((table @ table)[before, after] / 5))
    assert chain.cloze_entropy == pytest.approx(loss)


def test_every_predicted_word_of_a_held_out_batch_is_masked(experiment):
    toy = experiment("toy")
    config = TrainingConfig(batch_size=8, mlm_probability=0.3)
    batches = toy.draw_chain(30).batches(config, num_pairs=32, seed=0)
    for batch in toy.fully_masked(batches, 3):
        assert (batch["input_ids"].view(-1)[batch["masked_cells"]] == Special.MASK).all()
        assert (batch["input_ids"] == Special.MASK).sum() == len(batch["masked_labels"])


@pytest.mark.slow
def test_a_head_without_its_own_norm_grows_the_last_scale(experiment):
    initialization = experiment("initialization")
    with_dense, without = (
        initialization.last_scale(has_dense=has_dense, seed=0, num_steps=150)
        for has_dense in (True, False)
    )
    assert with_dense < 1.02 < without


@pytest.mark.slow
def test_deepnorm_learns_to_look_at_neighbours_where_post_norm_does_not(experiment):
    residuals = experiment("residuals")
    trial = residuals.Trial(layers=24, num_steps=150)
    deepnorm = trial.loss(0, norm="deepnorm", initialization="deepnorm")
    post = trial.loss(0, norm="post", initialization="arithmetic")
    assert deepnorm < residuals.CHAIN.unigram_entropy - 0.05 < post


def test_bounds_decide_what_is_accepted(experiment):
    line = experiment("tables").Line(figure="x", measured=[1.0, 2.0], at_least=1.4, at_most=1.6)
    assert line.is_accepted
    assert "1.5 ± 0.71" in str(line)
    assert line.to_json()["measured"] == [1.0, 2.0]
    diverged = experiment("tables").Line(figure="x", measured=math.inf, at_most=1.0)
    assert diverged.is_accepted is False
    assert diverged.to_json()["measured"] is None
