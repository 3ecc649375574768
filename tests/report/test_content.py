import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from desmatch.errors import UserError
from desmatch.report.content import HISTORY, read_card, read_content
from desmatch.report.page import write_report
from desmatch.runs import read_json, write_json
from desmatch.train import trainer


def test_the_history_has_the_name_that_training_gives_it():
    assert HISTORY == trainer.HISTORY


def test_a_run_is_read_as_it_lies_in_its_folder(finished_run):
    content = read_content(finished_run)
    table = pq.read_table(finished_run / "predictions" / "validation.parquet")
    np.testing.assert_array_equal(content.labels, table["label"])
    np.testing.assert_array_equal(content.scores, table["honest_score"])
    assert {line["stage"] for line in content.history} == {"pretrained", "finetuned"}
    assert set(content.lengths) == {"train", "test", "unlabeled"}
    assert content.component_sizes.sum() == 300


def test_the_page_of_a_finished_run_can_be_made_again(finished_run, tmp_path):
    page = write_report(tmp_path, read_content(finished_run))
    for name in ("report.html", "report.json"):
        assert (page.parent / name).read_bytes() == (finished_run / name).read_bytes()


@pytest.fixture
def older_run(finished_run, tmp_path):
    """A run without folders of folds and without prepared data."""
    run = tmp_path / "older"
    shutil.copytree(finished_run / "predictions", run / "predictions")
    shutil.copy(finished_run / "card.json", run)
    for stage in ("pretrained", "finetuned"):
        (run / stage).mkdir()
        line = {"stage": stage, "step": 1, "loss": 1.0}
        (run / stage / HISTORY).write_text(json.dumps([line]), encoding="utf-8")
    return run


def test_an_older_run_has_what_it_has(older_run):
    content = read_content(older_run)
    assert [line["stage"] for line in content.history] == ["pretrained", "finetuned"]
    assert content.lengths == {}
    assert len(content.weights) == len(content.component_sizes) == 0
    assert write_report(older_run, content).is_file()


def write_folds(run, *folds):
    for fold in folds:
        folder = run / f"fold-{fold}" / "finetuned"
        folder.mkdir(parents=True)
        lines = [{"stage": "finetuned", "step": 1, "loss": float(fold)}]
        (folder / HISTORY).write_text(json.dumps(lines), encoding="utf-8")


def write_recipe(run, **validation):
    card = read_json(run / "card.json")
    write_json(run / "card.json", {**card, "recipe": {"validation": validation}})


def test_folds_are_read_in_order_and_named(older_run):
    write_folds(older_run, *range(11))
    write_recipe(older_run, folds="all", num_folds=11, fold=0)
    found = read_content(older_run).history
    assert [(line["fold"], line["loss"]) for line in found] == [(k, float(k)) for k in range(11)]


def test_folds_that_another_recipe_left_are_passed_over(older_run):
    write_folds(older_run, 0, 1, 2)
    write_recipe(older_run, folds="one", num_folds=3, fold=1)
    assert [line["loss"] for line in read_content(older_run).history] == [1.0]


def test_a_folder_without_a_card_is_no_finished_run(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        read_card(tmp_path)
