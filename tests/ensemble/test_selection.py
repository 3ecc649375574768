from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import expit

from desmatch.ensemble.combine import Views
from desmatch.ensemble.selection import (
    BestMember,
    GreedySelection,
    greedy_draws,
    selection_gain,
    sorted_auc,
)
from desmatch.ensemble.standings import OutOfFold
from desmatch.metrics.roc import roc_auc
from tests.ensemble.simulated import simulated_views

ONE_BAG = GreedySelection(num_bags=1, bag_share=1.0, num_rounds=10)


def out_of_fold(labels, logits, num_folds=5):
    rows = np.arange(len(labels))
    names = tuple(f"m{number}" for number in range(len(logits)))
    return OutOfFold(names, Views(logits), labels, rows % num_folds, rows)


@given(
    hnp.arrays(np.int8, 12, elements=st.integers(0, 1)),
    hnp.arrays(np.float64, 12, elements=st.integers(-3, 3).map(float)),
)
def test_the_fast_auc_is_the_auc(labels, scores):
    labels[:2] = [0, 1]
    assert sorted_auc(labels, scores) == pytest.approx(roc_auc(labels, scores), abs=1e-12)


def greedy_by_loop(values, labels, num_rounds):
    """Every ensemble on the greedy way, and the best of them."""
    way, drawn = [], []
    for _ in range(num_rounds):
        aucs = [roc_auc(labels, values[[*drawn, each]].mean(axis=0)) for each in range(len(values))]
        drawn = [*drawn, int(np.argmax(np.round(aucs, 12)))]
        way.append((round(max(aucs), 12), -len(drawn), drawn))
    return max(way)[2]


@pytest.mark.parametrize("seed", range(5))
def test_greedy_draws_are_those_of_a_loop(seed):
    labels, logits = simulated_views(np.random.default_rng(seed), num_rows=60, num_views=6)
    found = greedy_draws(expit(logits), labels, num_rounds=8)
    assert found.tolist() == greedy_by_loop(expit(logits), labels, 8)


def test_selection_finds_the_best_of_all_small_ensembles():
    labels, logits = simulated_views(np.random.default_rng(3), num_rows=100, num_views=2)
    values = expit(np.concatenate([logits, np.random.default_rng(0).normal(size=(2, 100))]))
    drawn = greedy_draws(values, labels, num_rounds=2)
    best = max(
        roc_auc(labels, values[list(chosen)].mean(axis=0))
        for chosen in combinations_with_replacement(range(4), 2)
    )
    assert roc_auc(labels, values[drawn].mean(axis=0)) == pytest.approx(best)


def test_it_begins_with_the_best_members():
    labels, logits = simulated_views(np.random.default_rng(4), num_rows=200, num_views=5)
    aucs = [roc_auc(labels, each) for each in logits]
    drawn = greedy_draws(logits, labels, num_rounds=3, num_first=3)
    assert drawn.tolist() == np.argsort(aucs)[::-1][:3].tolist()


@given(st.permutations(range(4)))
def test_the_order_of_members_changes_nothing(order):
    labels, logits = simulated_views(np.random.default_rng(5), num_rows=80, num_views=4)
    there = ONE_BAG.fit(Views(logits), labels).weights
    back = ONE_BAG.fit(Views(logits[list(order)]), labels).weights
    np.testing.assert_allclose(back, np.array(there)[list(order)])


@pytest.mark.parametrize("space", ["probability", "logit"])
def test_bags_share_the_weight(space):
    labels, logits = simulated_views(np.random.default_rng(6), num_rows=300, num_views=6)
    selection = GreedySelection(space=space, num_bags=10, num_rounds=5)
    first, second = (selection.fit(Views(logits), labels) for _ in range(2))
    assert first == second
    assert sum(first.weights) == pytest.approx(1)
    assert np.count_nonzero(first.weights) > 3
    assert selection.fit(Views(logits), labels) != GreedySelection(
        space=space, num_bags=10, num_rounds=5, seed=1
    ).fit(Views(logits), labels)


def test_useless_members_get_little():
    rng = np.random.default_rng(7)
    labels, logits = simulated_views(rng, num_rows=2000, num_views=3)
    noise = rng.normal(size=(5, 2000))
    weights = GreedySelection().fit(Views(np.concatenate([logits, noise])), labels).weights
    assert sum(weights[:3]) > 0.85


def test_the_best_member_is_the_one_of_the_highest_auc():
    labels, logits = simulated_views(np.random.default_rng(8), num_rows=200, num_views=4)
    fitted = BestMember().fit(Views(logits), labels)
    best = int(np.argmax([roc_auc(labels, each) for each in logits]))
    np.testing.assert_array_equal(fitted.apply(Views(logits)), logits[best])


def test_the_gain_of_pure_noise_is_not_honest():
    gains = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        labels = (rng.random(400) < 0.5).astype(np.int8)
        noise = out_of_fold(labels, rng.normal(size=(20, 400)))
        gains.append(selection_gain(ONE_BAG, noise, num_samples=20))
    selected = np.array([each.selected_gain for each in gains])
    honest = np.array([each.honest_gain for each in gains])
    assert (selected > 0.02).all()
    assert abs(honest.mean()) < 0.02  # 8 gains scatter by about 0.03 each
    assert honest.mean() < selected.mean() / 3


def test_the_gain_of_independent_members_is_honest():
    labels, logits = simulated_views(np.random.default_rng(9), num_rows=1500, num_views=5)
    gain = selection_gain(ONE_BAG, out_of_fold(labels, logits), num_samples=200)
    assert 0 < gain.interval.low < gain.honest_gain < gain.interval.high
    assert gain.honest_gain == pytest.approx(gain.selected_gain, abs=0.02)
    assert len(gain.fold_gains) == 5
    assert np.mean(gain.fold_gains) == pytest.approx(gain.honest_gain, abs=0.02)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_first": 9, "num_rounds": 5}, "num_first=9, num_rounds=5"),
        ({"num_bags": 0}, "num_bags=0"),
        ({"bag_share": 0.0}, r"bag_share=0.0: expected a share in \(0, 1\]"),
    ],
)
def test_what_would_draw_nothing_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        GreedySelection(**wrong)
