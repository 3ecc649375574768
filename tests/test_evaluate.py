from __future__ import annotations

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from desmatch.data.split import RANDOM
from desmatch.evaluate import RandomRows, expected_test_figures
from desmatch.pipeline import execute
from desmatch.recipe import Recipe
from desmatch.stages import load_run

RECIPE = Recipe()


def random_rows(*, known_share, num_rows=4000, known_of_them=0.5):
    """Rows with a known query are told apart well, the others hardly."""
    rng = np.random.default_rng(0)
    known = rng.random(num_rows) < known_of_them
    labels = rng.integers(0, 2, num_rows)
    scores = np.where(known, 3.0, 0.3) * labels + rng.normal(size=num_rows)
    return RandomRows(labels, scores, np.arange(num_rows), known, known_share)


def test_known_queries_count_as_in_the_test():
    rare, balanced, frequent = (
        expected_test_figures(random_rows(known_share=share), RECIPE, test_size=1000)
        for share in (0.1, 0.5, 0.9)
    )
    assert rare["expected_test_auc"] < balanced["expected_test_auc"] < frequent["expected_test_auc"]
    truth = expected_test_figures(
        random_rows(known_share=0.9, known_of_them=0.9), RECIPE, test_size=1000
    )
    assert frequent["expected_test_auc"] == pytest.approx(truth["expected_test_auc"], abs=0.015)
    low, high = frequent["interval"]
    assert low < truth["expected_test_auc"] < high


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
    metrics = json.loads((other.folder / "metrics" / "metrics.json").read_text())
    assert metrics["random_rows"] == len(rows)
    assert metrics["interval"][0] < metrics["expected_test_auc"] < metrics["interval"][1]
