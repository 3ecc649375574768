"""A model for each fold: what trains, what is re-used, and whose score is whose."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest

from desmatch.card import minutes_by_stage
from desmatch.cli import main
from desmatch.data.split import CUT, RANDOM
from desmatch.errors import UserError
from desmatch.matcher import PairMatcher
from desmatch.model.batch import UNLABELED, TrainingBatches
from desmatch.model.checkpoints import load_model
from desmatch.model.scoring import score_pairs
from desmatch.pipeline import execute
from desmatch.stages import load_run, steps
from desmatch.train.trainer import StageTrainer

FOLDS = 2


def words(sample_folder, out, options, *more):
    data = str(sample_folder)
    return ["run", "--recipe", "demo", "--data", data, "--out", str(out), *options, *more]


def contents(folder):
    """Bytes and times of all files."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def options(tiny_options):
    """Every id has a row of its own, so that encoded texts are equal only if the texts are."""
    return [*tiny_options, "--data.min_count=1", "--validation.random_share=0.1",
            f"--validation.num_folds={FOLDS}", "--pretrain.num_evaluations=1",
            "--finetune.num_train_epochs=1"]  # fmt: skip


@pytest.fixture(scope="module")
def grown(sample_folder, tmp_path_factory, options):
    """A run of one fold that went on to all: its folder, fold 0 as it was, and what trained."""
    out = tmp_path_factory.mktemp("folds") / "run"
    assert main(words(sample_folder, out, options)) == 0
    before = contents(out / "fold-0")
    trained = []
    train = StageTrainer.train

    def spying(self, *args, **kwargs):
        trained.append((self.args.output_dir, self.train_dataset, self.validation))
        return train(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "train", spying)
        assert main(words(sample_folder, out, options, "--folds", str(FOLDS))) == 0
    return out, before, trained


def texts(pairs, rows):
    """The texts of pairs as tuples of token ids."""
    ids, offsets = pairs.take(np.array(rows))
    return {tuple(ids[start:end].tolist()) for start, end in pairwise(offsets)}


def test_the_finished_fold_is_used_again(grown):
    out, before, trained = grown
    assert contents(out / "fold-0") == before
    names = ["fold-1/.pretrained.making", "fold-1/.finetuned.making"]
    assert [path for path, *_ in trained] == [str(out / name) for name in names]


def test_no_fold_trains_on_a_text_that_it_holds_out(grown):
    out, _, trained = grown
    prepared = load_run(out).prepared
    encoded, folds = prepared.encode("train"), prepared.train_column("fold")
    assert len(trained) == 2
    for path, batches, validation in trained:
        assert isinstance(batches, TrainingBatches)
        fold = int(path.split("fold-")[1][0])
        held_out = texts(encoded, np.flatnonzero(folds == fold))
        rows = batches.rows
        labelled = np.flatnonzero(rows.labels != UNLABELED)
        assert len(labelled) == ((folds != fold) & (folds >= 0)).sum() > 0
        assert not texts(rows.pairs, labelled) & held_out
        assert texts(validation.pairs, range(validation.pairs.num_pairs)) == held_out


def test_every_row_of_a_fold_is_scored_once_by_the_model_that_did_without_it(grown):
    out, *_ = grown
    prepared = load_run(out).prepared
    folds = prepared.train_column("fold")
    table = pq.read_table(out / "predictions" / "validation.parquet")
    rows = table["row"].to_numpy()
    np.testing.assert_array_equal(rows, np.flatnonzero((folds != CUT) & (folds != RANDOM)))
    np.testing.assert_array_equal(table["fold"].to_numpy(), folds[rows])
    np.testing.assert_array_equal(table["label"], prepared.train_column("label")[rows])
    assert table["weight"].to_numpy().mean() == pytest.approx(1, abs=0.2)
    for fold in range(FOLDS):
        part = pq.read_table(out / "predictions" / f"fold-{fold}" / "validation.parquet")
        assert table.filter(table["fold"].to_numpy() == fold).equals(
            part.select(table.column_names)
        )
        model = load_model(out / f"fold-{fold}" / "finetuned")
        of_fold = prepared.encode("train").take(np.flatnonzero(folds == fold))
        np.testing.assert_array_equal(score_pairs(model, of_fold).scores, part["score"])


def test_a_score_of_the_test_is_the_mean_over_the_folds(grown, sample_folder, tmp_path):
    out, *_ = grown
    parts = [pq.read_table(out / "predictions" / f"fold-{fold}" / "test.parquet")
             for fold in range(FOLDS)]  # fmt: skip
    table = pq.read_table(out / "predictions" / "test.parquet")
    for name in ("score", "logit_forward", "logit_backward"):
        expected = sum(part[name].to_numpy() for part in parts) / FOLDS
        np.testing.assert_allclose(table[name], expected, rtol=1e-12)
    known = np.stack([part["has_known_query"].to_numpy() for part in parts]).any(axis=0)
    np.testing.assert_array_equal(table["has_known_query"], known)
    test = sample_folder / "test.tsv"
    pairs = [tuple(line.split("\t")) for line in test.read_text().splitlines()]
    matcher = PairMatcher.from_pretrained(out)
    np.testing.assert_allclose(matcher.predict_proba(pairs)[:, 1], table["score"], rtol=1e-12)
    np.testing.assert_allclose(
        matcher.decision_function(pairs).forward, table["logit_forward"], rtol=1e-12
    )
    scores = tmp_path / "scores.tsv"
    assert main(["predict", str(out), "--test", str(test), "--out", str(scores)]) == 0
    assert scores.read_text() == (out / "submission" / "result.tsv").read_text()


def test_a_row_held_out_at_random_is_scored_by_all_models(grown):
    out, *_ = grown
    prepared = load_run(out).prepared
    table = pq.read_table(out / "predictions" / "random.parquet")
    rows = table["row"].to_numpy()
    np.testing.assert_array_equal(rows, np.flatnonzero(prepared.train_column("fold") == RANDOM))
    pairs = prepared.encode("train").take(rows)
    models = [load_model(out / f"fold-{fold}" / "finetuned") for fold in range(FOLDS)]
    expected = np.mean([score_pairs(model, pairs).scores for model in models], axis=0)
    np.testing.assert_allclose(table["score"], expected, rtol=1e-12)
    train = prepared.rows["train"]
    known = texts(prepared.encode("train"), np.flatnonzero(prepared.train_column("fold") >= 0))
    assert len(train) == 300
    by_hand = [bool(texts(pairs, [row]) & known) for row in range(len(rows))]
    assert table["has_known_query"].to_pylist() == by_hand


def test_the_card_says_how_many_models_there_are(grown, capsys):
    out, *_ = grown
    card = json.loads((out / "card.json").read_text())
    assert card["models"]["folds"] == [0, 1]
    assert "a score of the test is the mean" in card["models"]["note"]
    log = json.loads((out / "stages.json").read_text())
    total = sum(log[f"fold-{fold}/pretrain"]["minutes"] for fold in range(FOLDS))
    assert card["minutes_by_stage"]["pretrain"] == pytest.approx(total, abs=1e-9)
    assert card["minutes"] == pytest.approx(sum(card["minutes_by_stage"].values()), abs=0.006)
    assert main(["evaluate", str(out)]) == 0
    assert card["models"]["note"] in capsys.readouterr().out


def test_minutes_of_folds_and_layouts_that_no_longer_count_are_left_out(grown):
    log = json.loads((grown[0] / "stages.json").read_text())
    recipe = load_run(grown[0]).of_fold(1).recipe
    log["pretrain"] = {"minutes": 1000.0, "is_resumed": False}  # RUN/pretrained, once
    minutes = minutes_by_stage(log, recipe)
    assert minutes["pretrain"] == log["fold-1/pretrain"]["minutes"]
    assert minutes["prepare"] == log["prepare"]["minutes"]


def test_one_fold_of_a_run_is_exported_and_diagnosed(grown, tmp_path, capsys):
    out, *_ = grown
    assert main(["export", str(out), "--fold", "1", "--out", str(tmp_path / "plain")]) == 0
    assert main(["diagnose", str(out), "--fold", "1", "--batches", "1"]) == 0
    assert json.loads((out / "diagnosis" / "diagnosis.json").read_text())["fold"] == 1
    assert main(["export", str(out), "--fold", "2", "--out", str(tmp_path / "none")]) == 2
    assert "--fold 2: " in capsys.readouterr().err


def test_a_fold_does_not_depend_on_which_others_are_trained(grown):
    everything = load_run(grown[0])
    validation = everything.recipe.validation
    for fold in range(FOLDS):
        alone = dataclasses.replace(validation, folds="one", fold=fold, num_bootstraps=500)
        run = dataclasses.replace(
            everything, recipe=dataclasses.replace(everything.recipe, validation=alone)
        )
        assert run.digest("prepared") == everything.digest("prepared")
        for stage in ("pretrained", "finetuned", "pseudo-labeled"):
            assert run.digest(stage) == everything.of_fold(fold).digest(stage)
        assert run.digest("predictions") != everything.digest("predictions")
    digests = {part.digest("finetuned") for part in everything.folds}
    assert len(digests) == FOLDS


def test_a_fold_is_trained_whole_before_the_next(grown):
    order = [(part.held_out, stage.name) for part, stage in steps(load_run(grown[0]))
             if stage.is_per_fold]  # fmt: skip
    assert order == [(fold, name) for fold in range(FOLDS) for name in ("pretrain", "finetune")]


def test_a_missing_fold_is_named(grown, tmp_path):
    run = dataclasses.replace(load_run(grown[0]), folder=tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "fold-0").symlink_to(grown[0] / "fold-0")
    (tmp_path / "run" / "prepared").symlink_to(grown[0] / "prepared")
    with pytest.raises(UserError, match=r"fold-1/pretrained: missing .*run `desmatch pretrain"):
        execute(run, only="predict")


def test_a_killed_run_of_all_folds_resumes_to_the_same_bytes(
    grown, sample_folder, tmp_path, options, monkeypatch
):
    out = tmp_path / "killed"
    command = words(sample_folder, out, options, "--folds", str(FOLDS))
    step = StageTrainer.training_step

    def stumbling(self, *args, **kwargs):
        if "fold-1/.finetuned" in self.args.output_dir and self.state.global_step == 8:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", stumbling)
        assert main(command) == 130
    assert list(out.glob("fold-1/.finetuned.making/checkpoint-*"))
    assert not (out / "predictions").exists()
    finished = contents(out / "fold-0")
    assert main([*command, "--resume"]) == 0
    assert contents(out / "fold-0") == finished
    for name in ("test.parquet", "validation.parquet", "random.parquet"):
        path = f"predictions/{name}"
        assert (out / path).read_bytes() == (grown[0] / path).read_bytes()
    warnings = json.loads((out / "card.json").read_text())["warnings"]
    assert any(each.startswith("finetune of fold-1 was resumed") for each in warnings)
