import numpy as np
import pytest
from scipy.special import expit

from desmatch.ensemble.combine import LogitWeights, Views
from desmatch.ensemble.predictions import Predictions, combine_predictions, score_logits
from desmatch.ensemble.rules import RULES, rule_from_json, rule_to_json
from desmatch.errors import UserError
from desmatch.runs import read_json, write_json
from tests.ensemble.simulated import simulated_views


@pytest.fixture
def views():
    labels, logits = simulated_views(np.random.default_rng(0), num_rows=200, num_views=3)
    return labels, Views(logits, np.random.default_rng(1).normal(size=(2, 200)))


@pytest.mark.parametrize("name", [name for name in RULES if name not in ("rank-mean", "stacking")])
def test_a_rule_read_back_is_the_rule(name, views, tmp_path):
    labels, seen = views
    fitted = RULES[name].fit(seen, labels)
    write_json(tmp_path / "rule.json", rule_to_json(name, "xyz", fitted))
    again = rule_from_json(read_json(tmp_path / "rule.json"), run="run")
    np.testing.assert_array_equal(again.apply(seen), fitted.apply(seen))


@pytest.mark.parametrize("name", ["rank-mean", "stacking"])
def test_a_rule_that_numbers_do_not_hold_is_refused_when_it_is_read(name, views):
    labels, seen = views
    kept = rule_to_json(name, "xyz", RULES[name].fit(seen, labels))
    assert kept == {"combine": name, "members": ["x", "y", "z"]}
    with pytest.raises(UserError, match=f"runs/x: its members are combined by {name}"):
        rule_from_json(kept, run="runs/x")


def test_one_rule_combines_orders_and_scores(views):
    labels, seen = views
    rule = LogitWeights().fit(seen, labels)
    rng = np.random.default_rng(2)
    members = [Predictions(*rng.normal(size=(2, 5)), rng.random(5)) for _ in range(3)]
    found = combine_predictions(rule, members)
    for row in range(5):
        for order in (0, 1):
            logits = [member[order][row] for member in members]
            expected = np.dot(rule.weights, logits) + rule.intercept
            assert found[order][row] == pytest.approx(expected)
        logits = [np.log(member.scores[row] / (1 - member.scores[row])) for member in members]
        expected = expit(np.dot(rule.weights, logits) + rule.intercept)
        assert found.scores[row] == pytest.approx(expected)


def test_the_mean_of_probabilities_is_that_of_the_scores(views):
    labels, seen = views
    rule = RULES["probability-mean"].fit(seen, labels)
    scores = np.array([[0.0, 1.0, 0.3], [0.5, 1.0, 0.9], [0.0, 1.0, 0.1]])
    members = [Predictions(each, each, each) for each in scores]
    np.testing.assert_allclose(
        combine_predictions(rule, members).scores, scores.mean(axis=0), atol=1e-15
    )


def test_rounded_scores_have_the_largest_logits():
    found = score_logits(np.array([0.0, 1e-12, 0.5, 1 - 1e-12, 1.0]))
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()
    assert found[2] == 0
