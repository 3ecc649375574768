import numpy as np
import pytest

from desmatch.ensemble.combine import COMBINATIONS, LogitWeights, Mean, Views, combine_out_of_fold
from desmatch.ensemble.naive_bayes import log_loss_of_logits
from desmatch.ensemble.standings import OutOfFold, best_member, deal_folds, standings
from desmatch.metrics.intervals import bootstrap_auc, paired_bootstrap
from desmatch.metrics.roc import roc_auc
from desmatch.runs import generator
from tests.ensemble.simulated import simulated_views


@pytest.fixture
def oof():
    labels, logits = simulated_views(np.random.default_rng(0), num_rows=300, num_views=3)
    groups = np.arange(300) // 3
    folds = deal_folds(groups, num_folds=5, rng=np.random.default_rng(0))
    return OutOfFold(("x", "y", "z"), Views(logits), labels, folds, groups)


def test_every_figure_is_that_of_its_own_function(oof):
    lines = standings(oof, {"weights": LogitWeights()}, seed=3, num_samples=50)
    assert [line.name for line in lines] == ["x", "y", "z", "weights"]
    assert [line.is_member for line in lines] == [True, True, True, False]
    combined = combine_out_of_fold(LogitWeights(), oof.views, oof.labels, oof.folds)
    best = oof.views.logits[best_member(oof)]
    rng = generator(3, "standings")
    line = lines[3]
    assert line.rows == 300
    assert line.auc == roc_auc(oof.labels, combined.ranks)
    assert line.interval == bootstrap_auc(
        oof.labels, combined.ranks, oof.groups, rng=rng, num_samples=50
    )
    assert line.log_loss == log_loss_of_logits(oof.labels, combined.logits)
    assert line.difference == line.auc - max(each.auc for each in lines[:3])
    paired = paired_bootstrap(oof.labels, best, combined.ranks, oof.groups, rng=rng, num_samples=50)
    assert line.difference_interval == paired.interval


def test_the_best_member_differs_from_itself_by_nothing(oof):
    line = standings(oof, {}, num_samples=20)[best_member(oof)]
    assert (line.difference, line.difference_interval) == (0, (0, 0))


def test_independent_members_are_worth_more_together(oof):
    for line in standings(oof, {"probability": Mean(), "logit": Mean("logit")}, num_samples=100)[
        3:
    ]:
        assert line.difference_interval.low > 0


def test_a_member_that_abstains_is_measured_on_its_own_rows(oof):
    logits = oof.views.logits.copy()
    logits[0, :200] = np.nan
    partial = oof._replace(views=Views(logits))
    assert best_member(partial) != 0
    lines = standings(partial, COMBINATIONS, num_samples=10)
    assert lines[0].rows == 100
    assert lines[0].auc == roc_auc(oof.labels[200:], logits[0, 200:])
    best = logits[best_member(partial), 200:]
    assert lines[0].difference == lines[0].auc - roc_auc(oof.labels[200:], best)
    assert all(line.rows == 300 for line in lines[3:])


def test_folds_hold_whole_components():
    groups = np.array([5, 5, 2, 9, 2, 7, 1])
    folds = deal_folds(groups, num_folds=2, rng=np.random.default_rng(0))
    assert set(folds) == {0, 1}
    assert all(len(set(folds[groups == group])) == 1 for group in groups)
