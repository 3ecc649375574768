import numpy as np
import pytest
from scipy.special import logit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from desmatch.data.features import FEATURES, row_features
from desmatch.data.vocabulary import fit_vocabulary
from desmatch.ensemble.combine import Views, combine_out_of_fold
from desmatch.ensemble.lexical import LEXICAL, count_texts, lexical_features
from desmatch.ensemble.stacking import Stacking, stacking_features
from desmatch.metrics.roc import roc_auc
from desmatch.recipe import DataConfig
from tests.ensemble.simulated import simulated_views

MODELS = ["logistic", "boosting"]


def rows_with_features(seed=0, num_rows=600):
    """Two weak members, and a third view that is a feature."""
    labels, logits = simulated_views(np.random.default_rng(seed), num_rows=num_rows, num_views=3)
    return labels, Views(logits[:2], np.exp(logits[2:]))


def test_features_are_those_of_pairs_and_of_their_likeness():
    a, b = ["1 2 3", "4", ""], ["2 1", "", "1 1"]
    vocabulary = fit_vocabulary({"1": 9, "2": 5}, DataConfig(min_count=2))
    counts, ids = count_texts(a, b), {"1": 9, "2": 5, "3": 1}
    found = stacking_features(a, b, vocabulary, counts, ids)
    assert set(found) == {*FEATURES, *LEXICAL} - {"overlap"}
    expected = {**row_features(a, b, vocabulary, ids), **lexical_features(a, b, counts)}
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name])
    np.testing.assert_allclose(expected["overlap"], expected["jaccard"])


def test_logistic_regression_is_that_of_scikit_learn():
    labels, views = rows_with_features()
    columns = np.concatenate([views.logits, views.features]).T
    scaled = StandardScaler().fit_transform(columns)
    theirs = LogisticRegression(C=0.3, max_iter=1000).fit(scaled, labels)
    fitted = Stacking(c=0.3).fit(views, labels)
    np.testing.assert_allclose(fitted.apply(views), theirs.decision_function(scaled), atol=1e-9)


def test_boosting_gives_the_logit_of_its_probability():
    labels, views = rows_with_features()
    columns = np.concatenate([views.logits, views.features]).T
    theirs = HistGradientBoostingClassifier(
        max_iter=5, learning_rate=0.1, min_samples_leaf=20, early_stopping=False
    ).fit(columns, labels)
    stacking = Stacking(model="boosting", num_trees=5, learning_rate=0.1, min_samples_leaf=20)
    expected = logit(theirs.predict_proba(columns)[:, 1])
    np.testing.assert_allclose(stacking.fit(views, labels).apply(views), expected, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_features_add_what_no_member_sees(model):
    labels, views = rows_with_features(num_rows=1500)
    folds = np.arange(1500) % 3
    stacking = Stacking(model=model, num_trees=30)
    alone, beside = (
        roc_auc(labels, combine_out_of_fold(stacking, each, labels, folds).ranks)
        for each in (Views(views.logits), views)
    )
    assert beside > alone + 0.01


@pytest.mark.parametrize("model", MODELS)
def test_a_rows_own_label_has_no_say(model):
    labels, views = rows_with_features(num_rows=300)
    folds = np.arange(300) % 3
    stacking = Stacking(model=model, num_trees=5)
    before = combine_out_of_fold(stacking, views, labels, folds)
    changed = np.where(folds == 1, 1 - labels, labels).astype(np.int8)
    after = combine_out_of_fold(stacking, views, changed, folds)
    for there, here in zip(after, before, strict=True):
        np.testing.assert_array_equal(there[folds == 1], here[folds == 1])
    assert (after.logits != before.logits).any()


@pytest.mark.parametrize("model", MODELS)
def test_the_order_of_members_changes_nothing_and_one_may_abstain(model):
    labels, views = rows_with_features()
    logits = views.logits.copy()
    logits[0, ::5] = np.nan
    there, back = (
        Stacking(model=model, num_trees=5).fit(each, labels).apply(each)
        for each in (Views(logits, views.features), Views(logits[::-1], views.features))
    )
    assert np.isfinite(there).all()
    assert roc_auc(labels, there) == pytest.approx(roc_auc(labels, back), abs=1e-3)


def test_wrong_arguments_are_refused():
    labels, views = rows_with_features(num_rows=20)
    with pytest.raises(ValueError, match=r"expected features \(F, 20\), got \(1, 19\)"):
        Stacking().fit(views._replace(features=views.features[:, :19]), labels)
    with pytest.raises(ValueError, match="labels 0 and 1"):
        Stacking().fit(views, np.zeros(20, np.int8))
    with pytest.raises(ValueError, match=r"expected logits \(2, B\), got \(1, 20\)"):
        Stacking().fit(views, labels).apply(Views(views.logits[:1], views.features))
