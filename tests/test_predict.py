from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from desmatch.predict import honest_scores, predict_run
from desmatch.recipe import PredictConfig
from desmatch.runs import CLOSURE, TEST, VALIDATION, read_json
from desmatch.stages import load_run


def noise(num_evaluations=60, num_rows=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random(num_rows) < 0.4).astype(np.int8)
    return rng.random((num_evaluations, num_rows)), labels, np.arange(num_rows), rng


def test_choosing_among_noise_flatters_and_honest_scores_do_not():
    scores, labels, groups, _ = noise()
    best = max(roc_auc_score(labels, each) for each in scores)
    honest = [
        roc_auc_score(labels, honest_scores(scores, labels, groups, rng=np.random.default_rng(s)))
        for s in range(12)
    ]
    assert best > 0.55
    assert np.mean(honest) == pytest.approx(0.5, abs=0.03)


def test_with_one_evaluation_nothing_changes():
    scores, labels, groups, rng = noise(1)
    np.testing.assert_array_equal(honest_scores(scores, labels, groups, rng=rng), scores[0])


def test_a_component_is_scored_by_one_checkpoint():
    scores, labels, _, rng = noise(20)
    groups = np.arange(400) // 4
    honest = honest_scores(scores, labels, groups, rng=rng)
    chosen = np.argmax(scores == honest, axis=0)
    assert all(len(set(chosen[groups == group])) == 1 for group in range(100))


def test_halves_without_both_labels_fall_back_to_the_last_evaluation():
    scores, labels, _, rng = noise(5, 10)
    groups = np.where(labels == 1, 0, 1)
    np.testing.assert_array_equal(honest_scores(scores, labels, groups, rng=rng), scores[-1])


def test_answers_of_labelled_pairs_move_the_test_alone(finished_run, tmp_path):
    run = load_run(finished_run)
    recipe = dataclasses.replace(run.recipe, predict=PredictConfig(closure=True))
    predict_run(run.prepared, recipe, {run.held_out: run.last_model}, tmp_path)
    figures = read_json(tmp_path / CLOSURE)
    plain, moved = (
        pq.read_table(folder / TEST) for folder in (finished_run / "predictions", tmp_path)
    )
    for order in ("logit_forward", "logit_backward"):
        change = np.asarray(moved[order]) - np.asarray(plain[order])
        is_moved = np.abs(change) > 1e-9
        assert is_moved.sum() == figures["answered_test_rows"] > 0
        ratios = figures["log_likelihood_ratios"]
        assert np.isclose(change[is_moved][:, None], ratios).any(axis=1).all()
    same = [
        pq.read_table(folder / VALIDATION) for folder in (finished_run / "predictions", tmp_path)
    ]
    assert same[0].equals(same[1])
    assert read_json(finished_run / "predictions" / CLOSURE) == {"is_used": False}
