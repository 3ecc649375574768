from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit
from sklearn import metrics

from desmatch.data.split import RANDOM
from desmatch.errors import UserError
from desmatch.evaluate import Scored, order_figures, read_column, validation_figures
from desmatch.pipeline import execute
from desmatch.recipe import Recipe
from desmatch.stages import load_run

RECIPE = Recipe()
LEVEL = {"auc": 0.51, "interval": [0.5, 0.52]}
SHIFTED = {"auc": 0.7, "interval": [0.69, 0.71]}


def scored_rows(*, num_rows=600, num_folds=1):
    """Rows of weight 3 are told apart well, those of weight 1 / 3 hardly; logits are too large."""
    rng = np.random.default_rng(0)
    heavy = rng.random(num_rows) < 0.25
    labels = rng.integers(0, 2, num_rows).astype(np.int8)
    logits = 4 * (np.where(heavy, 3.0, 0.5) * (labels - 0.5) + rng.normal(size=num_rows))
    forward, backward = logits + rng.normal(size=num_rows), logits - rng.normal(size=num_rows)
    scores = (expit(forward) + expit(backward)) / 2
    return Scored(
        row=np.arange(num_rows),
        fold=(np.arange(num_rows) // 2 % num_folds).astype(np.int32),
        labels=labels,
        groups=np.arange(num_rows) // 2,
        weights=np.where(heavy, 3.0, 1 / 3),
        forward=forward,
        backward=backward,
        scores=scores,
        honest_scores=expit(logits),
    )


@pytest.mark.parametrize("num_folds", [1, 3])
def test_figures_are_those_of_scikit_learn_on_the_honest_scores(num_folds):
    scored = scored_rows(num_folds=num_folds)
    found = validation_figures(scored, RECIPE, test_size=500, drift=LEVEL)
    labels, probs = scored.labels, scored.honest_scores
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, probs))
    assert found["weighted_auc"] == pytest.approx(
        metrics.roc_auc_score(labels, probs, sample_weight=scored.weights)
    )
    assert found["pr_auc"] == pytest.approx(metrics.average_precision_score(labels, probs))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(labels, probs))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, probs))
    assert found["auc_of_kept_weights"] == pytest.approx(
        metrics.roc_auc_score(labels, scored.scores)
    )
    assert found["effective_rows"] < 600
    for fold in found["folds"]:
        here = scored.fold == fold["fold"]
        assert fold["rows"] == here.sum()
        assert fold["auc"] == pytest.approx(metrics.roc_auc_score(labels[here], probs[here]))
    assert sum(fold["rows"] for fold in found["folds"]) == 600
    json.dumps(found, allow_nan=False)


def test_the_interval_is_that_of_the_headline():
    scored = scored_rows()
    plain, weighted = (
        validation_figures(scored, RECIPE, test_size=500, drift=drift) for drift in (LEVEL, SHIFTED)
    )
    assert plain["headline"]["name"] == "auc"
    assert plain["interval"] == plain["headline"]["interval"] == plain["test_interval"]
    assert weighted["headline"]["name"] == "weighted_auc"
    assert weighted["interval"] == weighted["weighted_interval"] != plain["interval"]
    assert weighted["interval"][0] < weighted["weighted_auc"] < weighted["interval"][1]
    inside, outside = plain["validation_interval"], plain["test_interval"]
    assert outside[0] < inside[0] < plain["auc"] < inside[1] < outside[1]


def test_calibration_and_thresholds_are_fitted_on_other_rows():
    found = validation_figures(scored_rows(), RECIPE, test_size=500, drift=LEVEL)
    calibration = found["calibration"]
    assert calibration["none"]["log_loss"] == pytest.approx(found["log_loss"])
    assert calibration["temperature"]["log_loss"] < calibration["none"]["log_loss"] - 0.1
    assert calibration["temperature"]["temperature"] > 1.5
    for figure in ("accuracy", "f1"):
        assert 0.5 < found["threshold"][figure]["value"] < 1


def test_what_cannot_be_fitted_on_other_rows_is_left_out():
    scored = scored_rows()
    labels = np.zeros(600, np.int8)
    labels[7] = 1  # one half of the components has no positive row
    found = validation_figures(scored._replace(labels=labels), RECIPE, test_size=500, drift=LEVEL)
    assert found["threshold"] is None
    assert found["calibration"] is None


def test_the_order_of_texts_is_measured():
    scored = scored_rows()
    found = order_figures(scored)
    forward, backward = expit(scored.forward), expit(scored.backward)
    assert found["mean_difference"] == pytest.approx(np.mean(np.abs(forward - backward)))
    assert found["decision_flips"] == pytest.approx(np.mean((forward > 0.5) != (backward > 0.5)))
    for name, scores in (("forward", forward), ("backward", backward), ("mean", scored.scores)):
        expected = metrics.roc_auc_score(scored.labels, scores)
        assert found[f"auc_{name}"] == pytest.approx(expected)
    same = order_figures(scored._replace(backward=scored.forward))
    assert same["mean_difference"] == same["decision_flips"] == 0


def test_a_run_has_all_figures(finished_run):
    found = json.loads((finished_run / "metrics" / "metrics.json").read_text())
    names = {each["slice"] for each in found["slices"]}
    assert names == {"length", "overlap", "oov_share", "rarest_count", "is_same_bag",
                     "order_difference", "fold"}  # fmt: skip
    for name in names - {"fold"}:
        assert (
            sum(each["rows"] for each in found["slices"] if each["slice"] == name) == found["rows"]
        )
    assert len(found["hardest"]) == 20
    assert found["headline"]["value"] == found[found["headline"]["name"]]
    assert load_run(finished_run).prepared.figures["drift"]["interval"]


def test_a_run_holds_single_rows_out(finished_run, tmp_path):
    run = load_run(finished_run)
    validation = dataclasses.replace(run.recipe.validation, random_share=0.4)
    recipe = dataclasses.replace(run.recipe, validation=validation)
    other = dataclasses.replace(run, folder=tmp_path / "run", recipe=recipe)
    execute(other)
    predicted = pq.read_table(other.folder / "predictions" / "random.parquet")
    rows = predicted["row"].to_numpy()
    fold = other.prepared.train_column("fold")
    assert (fold[rows] == RANDOM).all()
    train = other.prepared.rows["train"]
    trained = {
        row[side]
        for row in train.select(np.flatnonzero((fold != validation.fold) & (fold >= 0)))
        for side in ("a", "b")
    }
    known = [bool({row["a"], row["b"]} & trained) for row in train.select(rows)]
    assert predicted["has_known_query"].to_pylist() == known
    figures = json.loads((other.folder / "metrics" / "metrics.json").read_text())
    assert figures["random_rows"] == len(rows)
    held_out = pq.read_table(other.folder / "predictions" / "validation.parquet")
    texts = Counter(row[side] for row in train for side in ("a", "b"))
    is_lone = [texts[row["a"]] == texts[row["b"]] == 1
               for row in train.select(held_out["row"].to_numpy())]  # fmt: skip
    held_out = held_out.filter(is_lone)
    assert figures["expected_test_rows"] == len(rows) + len(held_out)
    share = figures["test_share_with_known_query"]
    is_known = np.append(known, np.zeros(len(held_out), bool))
    weights = np.where(is_known, share / is_known.mean(), (1 - share) / (1 - is_known.mean()))
    names = (("label", "label"), ("score", "honest_score"))
    labels, scores = (
        np.append(predicted[single].to_numpy(), held_out[of_fold].to_numpy())
        for single, of_fold in names
    )
    expected = metrics.roc_auc_score(labels, scores, sample_weight=weights)
    assert figures["expected_test_auc"] == pytest.approx(expected)
    assert figures["interval"] == figures["expected_test_interval"]
    assert figures["interval"][0] < figures["expected_test_auc"] < figures["interval"][1]
    assert figures["headline"]["name"] == "expected_test_auc"
    known = [each for each in figures["slices"] if each["slice"] == "has_known_query"]
    assert sum(each["rows"] for each in known) == len(rows)


def test_predictions_of_another_version_are_refused_by_the_column_they_lack(tmp_path):
    path = tmp_path / "validation.parquet"
    pq.write_table(pa.table({"label": [0, 1]}), path)
    with pytest.raises(UserError, match="no column 'fold', so it was made by another version"):
        read_column(path, "fold")
    path.write_bytes(b"PAR1")
    with pytest.raises(UserError, match="cannot be read"):
        read_column(path, "label")
