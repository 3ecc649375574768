from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from desmatch.errors import UserError
from desmatch.intake import Sources, find_sources
from desmatch.pipeline import ACTS, execute, execute_fold
from desmatch.recipe import Recipe
from desmatch.recipe_file import flat_keys
from desmatch.stage_table import STAGES
from desmatch.stages import Run, load_run


def test_a_stage_reads_only_what_an_earlier_one_wrote():
    written: set[str] = set()
    for stage in STAGES:
        assert set(stage.reads) <= written, stage.name
        written.add(stage.writes)
    names = "prepare mlm distill pretrain finetune pseudo-label predict evaluate submit report"
    assert [stage.name for stage in STAGES] == names.split() == list(ACTS)


def test_a_stage_uses_parts_that_a_recipe_has():
    parts = set(flat_keys(Recipe))
    for stage in STAGES:
        assert set(stage.options) <= parts


def test_the_card_signs_the_run(finished_run):
    card = json.loads((finished_run / "card.json").read_text())
    published = json.loads((finished_run / "submission" / "card.json").read_text())
    assert card["validation"].pop("hardest")  # rows of the data stay in the run
    assert card == published
    low, high = card["validation"]["test_interval"]
    inner_low, inner_high = card["validation"]["validation_interval"]
    assert 0 <= low <= inner_low <= card["validation"]["auc"] <= inner_high <= high <= 1
    assert card["seed"] == 0
    assert card["recipe_name"] == "demo"
    assert card["versions"]["torch"]
    assert [each["rows"] for each in card["data"]] == [300, 60, 100]
    assert card["command"].startswith("desmatch run --recipe demo --data ")


def test_the_claimed_figures_are_those_of_the_predictions(finished_run):
    validation = pq.read_table(finished_run / "predictions" / "validation.parquet")
    labels = validation["label"].to_numpy()
    metrics = json.loads((finished_run / "metrics" / "metrics.json").read_text())
    assert metrics["auc"] == pytest.approx(
        roc_auc_score(labels, validation["honest_score"].to_numpy())
    )
    assert metrics["auc_of_kept_weights"] == pytest.approx(
        roc_auc_score(labels, validation["score"].to_numpy())
    )
    logits = np.stack(
        [validation[f"logit_{order}"].to_numpy() for order in ("forward", "backward")]
    )
    np.testing.assert_allclose(
        validation["score"].to_numpy(), (1 / (1 + np.exp(-logits))).mean(axis=0), rtol=1e-12
    )


def test_held_out_rows_are_those_of_the_fold_and_share_no_query(finished_run):
    run = load_run(finished_run)
    prepared = run.prepared
    rows = pq.read_table(finished_run / "predictions" / "validation.parquet")["row"].to_numpy()
    fold = prepared.train_column("fold")
    assert (fold[rows] == run.recipe.validation.fold).all()
    train = prepared.rows["train"]
    texts = [{row[side] for row in train.select(part) for side in ("a", "b")}
             for part in (rows, np.flatnonzero(fold != run.recipe.validation.fold))]  # fmt: skip
    assert not texts[0] & texts[1]


def test_finished_stages_are_skipped_and_changed_ones_made_again(finished_run):
    lines: list[str] = []
    run = dataclasses.replace(load_run(finished_run), say=lines.append)
    before = (finished_run / "submission" / "result.tsv").stat().st_mtime_ns
    execute(run)
    assert len(lines) == 6
    assert all(line.endswith("still holds, skipped") for line in lines)
    assert (finished_run / "submission" / "result.tsv").stat().st_mtime_ns == before

    validation = dataclasses.replace(run.recipe.validation, num_bootstraps=200)
    changed = dataclasses.replace(
        run, recipe=dataclasses.replace(run.recipe, validation=validation)
    )
    assert run.digest("metrics") != changed.digest("metrics")
    assert run.digest("predictions") == changed.digest("predictions")
    pretrain = dataclasses.replace(run.recipe.pretrain, learning_rate=1e-5)
    other = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, pretrain=pretrain))
    assert run.digest("prepared") == other.digest("prepared")
    assert run.digest("finetuned") != other.digest("finetuned")


def test_a_stage_whose_input_is_missing_says_which_comes_first(finished_run, tmp_path):
    run = dataclasses.replace(load_run(finished_run), folder=tmp_path / "other")
    with pytest.raises(UserError, match=r"prepared: missing or out of date; run `desmatch prepare"):
        execute(run, only="finetune")


def test_sources_of_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_sources(tmp_path / "none")
    with pytest.raises(UserError, match=r"no train\.tsv"):
        find_sources(tmp_path)
    (tmp_path / "train.tsv.gz").touch()
    (tmp_path / "test.jsonl").touch()
    assert find_sources(tmp_path) == Sources(
        (tmp_path / "train.tsv.gz",), tmp_path / "test.jsonl", ()
    )
    (tmp_path / "train.tsv").touch()
    with pytest.raises(UserError, match=r"both train\.tsv and train\.tsv\.gz; keep one"):
        find_sources(tmp_path)


def test_a_missing_source_is_named(tiny_recipe, tmp_path):
    run = Run(tmp_path / "run", tiny_recipe, Sources((Path("no.tsv"),), Path("none.tsv")))
    with pytest.raises(UserError, match=r"no\.tsv: no such file"):
        execute(run)


def test_refused_rows_leave_no_run_behind(tiny_recipe, sample_folder, tmp_path):
    (tmp_path / "train.tsv").write_text("1 2\t3\tmaybe\n")
    sources = Sources((tmp_path / "train.tsv",), sample_folder / "test.tsv")
    with pytest.raises(UserError, match=r"train\.tsv:1"):
        execute(Run(tmp_path / "run", tiny_recipe, sources))
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run"):
        load_run(tmp_path)


def test_a_run_takes_finished_stages_over_from_its_donors(finished_run, tmp_path, monkeypatch):
    lines: list[str] = []
    run = dataclasses.replace(
        load_run(finished_run), folder=tmp_path / "run", donors=(tmp_path / "none", finished_run),
        say=lines.append,
    )  # fmt: skip
    monkeypatch.setitem(ACTS, "pretrain", pytest.fail)
    monkeypatch.setitem(ACTS, "finetune", pytest.fail)
    model = execute_fold(run, run.recipe.validation.fold)
    assert model == run.folder / "fold-0" / "finetuned"
    weights = "fold-0/finetuned/model.safetensors"
    assert (run.folder / weights).samefile(finished_run / weights)
    assert [line.rpartition(", ")[2] for line in lines] == ["taken over"] * 3
    assert not (run.folder / "predictions").exists()
    for name in ("predict", "evaluate", "submit"):
        execute(run, only=name)
    card = json.loads((run.folder / "card.json").read_text())
    theirs = json.loads((finished_run / "card.json").read_text())
    assert card["validation"] == theirs["validation"]
    taken = [each for each in card["warnings"] if "was taken over from another run" in each]
    assert [each.split()[0] for each in taken] == ["prepare", "pretrain", "finetune"]
    assert card["minutes_by_stage"]["finetune"] == 0


def test_a_donor_of_other_options_gives_only_what_does_not_depend_on_them(finished_run, tmp_path):
    run = load_run(finished_run)
    finetune = dataclasses.replace(run.recipe.finetune, learning_rate=0.5)
    recipe = dataclasses.replace(run.recipe, finetune=finetune)
    lines: list[str] = []
    changed = dataclasses.replace(
        run, folder=tmp_path / "run", recipe=recipe, donors=(finished_run,), say=lines.append
    )
    execute_fold(changed, 0)
    assert [line.split(":")[0] for line in lines] == ["prepare", "pretrain"]
    weights = "fold-0/finetuned/model.safetensors"
    ours, theirs = (folder / weights for folder in (changed.folder, finished_run))
    assert ours.read_bytes() != theirs.read_bytes()
    log = json.loads((changed.folder / "stages.json").read_text())
    assert ["is_taken_over" in each for each in log.values()] == [True, True, False]


def test_a_stage_that_was_cut_off_before_it_was_logged_is_logged_by_the_next_start(
    finished_run, tmp_path
):
    run = dataclasses.replace(load_run(finished_run), folder=tmp_path / "run",
                              donors=(finished_run,), say=lambda _: None)  # fmt: skip
    execute_fold(run, 0)
    log = run.folder / "stages.json"
    entries = json.loads(log.read_text())
    cut_off = entries.pop("fold-0/pretrain")
    assert cut_off["is_taken_over"]
    log.write_text(json.dumps(entries))
    execute_fold(run, 0)
    unknown = {"minutes": 0.0, "is_resumed": True}
    assert json.loads(log.read_text()) == {**entries, "fold-0/pretrain": unknown}
