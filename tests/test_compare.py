from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from desmatch.compare import compare_runs
from desmatch.errors import UserError
from desmatch.evaluate import COLUMNS
from desmatch.runs import write_json


def write_run(folder, rows, scores, *, digest="0", labels=None):
    """A run's folder as far as a comparison reads it."""
    labels = rows % 2 if labels is None else labels
    columns = {name: np.asarray(scores) for name in COLUMNS}
    columns |= {"row": rows, "label": labels.astype(np.int8), "group": rows // 2, "fold": rows * 0}
    (folder / "predictions").mkdir(parents=True)
    pq.write_table(pa.table(columns), folder / "predictions" / "validation.parquet")
    write_json(folder / "prepared" / "figures.json", {"data": [{"sha256": [digest]}]})
    return folder


def scores_of(rows, *, noise, seed=0):
    return rows % 2 + noise * np.random.default_rng(seed).normal(size=len(rows))


def test_the_same_rows_are_compared(tmp_path):
    rows = np.arange(400)
    worse, better = scores_of(rows, noise=2.0), scores_of(rows, noise=0.7, seed=1)
    found = compare_runs(
        write_run(tmp_path / "first", rows, worse), write_run(tmp_path / "second", rows, better)
    )
    assert found["rows"] == 400
    assert found["auc_first"] == pytest.approx(roc_auc_score(rows % 2, worse))
    assert found["auc_second"] == pytest.approx(roc_auc_score(rows % 2, better))
    assert found["difference"] == found["auc_second"] - found["auc_first"]
    assert found["interval"][0] < found["difference"] < found["interval"][1]
    np.testing.assert_allclose(found["interval"], found["delong"]["interval"], atol=0.02)
    assert found["chance_second_is_better"] > 0.99
    assert found["delong"]["p_value"] < 0.01
    assert found["warnings"] == []
    json.dumps(found, allow_nan=False)


def test_order_of_rows_does_not_matter_and_others_are_left_out(tmp_path):
    rows, some = np.arange(400), np.arange(380)[::-1].copy()
    first, second = scores_of(rows, noise=2.0), scores_of(rows, noise=0.7, seed=1)
    found = compare_runs(
        write_run(tmp_path / "first", rows, first),
        write_run(tmp_path / "second", some, second[some]),
    )
    assert found["rows"] == 380
    assert found["auc_second"] == pytest.approx(roc_auc_score(some % 2, second[some]))
    assert len(found["warnings"]) == 1
    assert found["warnings"][0].startswith("20 rows that only one of the runs")


def test_runs_without_a_row_in_common_cannot_be_compared(tmp_path):
    rows = np.arange(40)
    first = write_run(tmp_path / "first", rows, scores_of(rows, noise=1.0))
    second = write_run(tmp_path / "second", rows + 40, scores_of(rows, noise=1.0))
    with pytest.raises(UserError, match="0 rows are held out by both, 0 of them positive; runs"):
        compare_runs(first, second)


@pytest.mark.parametrize("other", [{"digest": "1"}, {"labels": np.arange(40) % 3 == 0}])
def test_runs_of_other_data_cannot_be_compared(tmp_path, other):
    rows = np.arange(40)
    first = write_run(tmp_path / "first", rows, scores_of(rows, noise=1.0))
    second = write_run(tmp_path / "second", rows, scores_of(rows, noise=1.0), **other)
    with pytest.raises(UserError, match="runs of other labelled rows cannot be compared"):
        compare_runs(first, second)


def test_a_run_without_predictions_is_named(tmp_path):
    with pytest.raises(UserError, match=r"validation.parquet: cannot be read.*desmatch predict"):
        compare_runs(tmp_path, tmp_path)
