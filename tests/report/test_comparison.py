import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desmatch.cli import main
from desmatch.compare import compare_runs
from desmatch.errors import UserError
from desmatch.report.comparison import (
    ABSENT,
    disagreements,
    read_runs,
    recipe_differences,
    shared_scores,
    write_comparison,
)
from desmatch.runs import read_json, write_json


def test_the_others_are_compared_with_the_first(runs, comparison):
    found = read_json(comparison.with_suffix(".json"))
    assert [run["name"] for run in found["runs"]] == ["tiny", "better", "worse"]
    for each, other in zip(found["paired"], runs[1:], strict=True):
        expected = compare_runs(runs[0], other)
        assert {key: each[key] for key in expected} == json.loads(json.dumps(expected))
    assert found["paired"][0]["difference"] > 0 > found["paired"][1]["difference"]


def test_only_the_values_that_differ_are_listed(comparison):
    found = read_json(comparison.with_suffix(".json"))
    (difference,) = found["recipe_differences"]
    assert difference["key"] == "finetune.learning_rate"
    assert difference["values"][1:] == [1.0, 2.0]


def test_slices_that_no_other_run_has_are_left_out(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    for name in ("card.json", "metrics/metrics.json"):
        content = read_json(other / name)
        validation = content.get("validation", content)
        validation["slices"] = [{**each, "auc": 0.25} for each in validation["slices"][:2]]
        write_json(other / name, content)
    found = write_comparison([runs[0], other], tmp_path / "page.html")["slices"]
    first = read_json(runs[0] / "card.json")["validation"]["slices"][:2]
    assert [(each["value"], each["aucs"]) for each in found] == [
        (each["value"], [each["auc"], 0.25]) for each in first
    ]


def test_a_value_that_a_recipe_lacks_differs():
    recipes = [{"a": {"b": 1}, "c": 2}, {"c": 2}]
    assert recipe_differences(recipes) == [{"key": "a.b", "values": [1, ABSENT]}]
    assert recipe_differences([{"a": 1}, {"a": 1}]) == []


def test_rows_are_ordered_by_the_distance_of_their_scores(runs):
    found = disagreements(read_runs(runs))
    rows, scores, _ = shared_scores(read_runs(runs))
    expected = np.sort(np.ptp(scores, axis=0))[::-1][: len(found)]
    np.testing.assert_allclose([each["spread"] for each in found], expected)
    place = int(np.flatnonzero(rows == found[0]["row"])[0])
    assert found[0]["scores"] == scores[:, place].tolist()
    assert found[0]["file"] == "train.tsv"
    assert {"line", "a", "b"} <= set(found[0])


def test_rows_are_met_by_their_number_whatever_their_order(runs, tmp_path):
    rows, scores, labels = shared_scores(read_runs(runs[:2]))
    turned = tmp_path / "turned"
    shutil.copytree(runs[1], turned)
    path = turned / "predictions" / "validation.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(np.arange(len(table))[::-1]), path)
    for one, other in zip(shared_scores(read_runs([runs[0], turned])), (rows, scores, labels),
                          strict=True):  # fmt: skip
        np.testing.assert_array_equal(one, other)


def test_the_same_runs_give_the_same_bytes(runs, comparison, tmp_path):
    again = tmp_path / "again.html"
    write_comparison(runs, again)
    assert again.read_bytes() == comparison.read_bytes()
    assert again.with_suffix(".json").read_bytes() == comparison.with_suffix(".json").read_bytes()


def test_runs_of_one_name_are_told_apart_by_their_paths(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / runs[0].name)
    names = [run.name for run in read_runs([runs[0], other])]
    assert names == [str(runs[0]), str(other)]


def test_the_verb_writes_the_page_and_says_the_differences(runs, tmp_path, capsys):
    page = tmp_path / "page.html"
    words = ["report", *map(str, runs[:2]), "--out", str(page)]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "better against tiny: +0." in said
    assert f"wrote {page}" in said
    assert page.is_file()
    assert page.with_suffix(".json").is_file()


def test_the_verb_writes_the_page_of_one_run(older_report, capsys):
    assert main(["report", str(older_report)]) == 0
    assert f"wrote {older_report / 'report.html'}" in capsys.readouterr().out


@pytest.fixture
def older_report(finished_run, tmp_path):
    run = tmp_path / "alone"
    shutil.copytree(finished_run / "predictions", run / "predictions")
    shutil.copy(finished_run / "card.json", run)
    return run


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda runs, folder: [runs[0], folder], "no finished run"),
        (lambda runs, _: [runs[0], runs[0]], "given twice"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, tmp_path, make, message):
    with pytest.raises(UserError, match=message):
        write_comparison(make(runs, tmp_path), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_runs_without_a_row_in_common_are_refused(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    path = other / "predictions" / "validation.parquet"
    table = pq.read_table(path)
    moved = {name: np.asarray(table[name]) for name in table.column_names}
    moved["row"] = moved["row"] + 1_000
    pq.write_table(pa.table(moved), path)
    with pytest.raises(UserError, match="rows are held out by both"):
        write_comparison([runs[0], other], tmp_path / "page.html")
    with pytest.raises(UserError, match="no rows of both labels"):
        shared_scores(read_runs([runs[0], other]))


def test_a_page_is_html(runs, tmp_path):
    with pytest.raises(UserError, match=r"ends in \.html"):
        write_comparison(runs, tmp_path / "page.json")


def test_out_is_for_several_runs(runs, tmp_path, capsys):
    assert main(["report", str(runs[0]), "--out", str(tmp_path / "x.html")]) == 2
    assert "--out is for several runs" in capsys.readouterr().err


def test_a_card_older_than_its_figures_is_refused(runs, tmp_path):
    run = tmp_path / "stale"
    shutil.copytree(runs[1], run)
    figures = read_json(run / "metrics" / "metrics.json")
    write_json(run / "metrics" / "metrics.json", {**figures, "auc": 0.5})
    with pytest.raises(UserError, match="its card is older than its figures"):
        read_runs([runs[0], run])
