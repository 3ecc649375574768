from __future__ import annotations

import dataclasses
import json
import shutil
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from desmatch.cli import main
from desmatch.data.split import CUT, RANDOM
from desmatch.distill import require_teacher, teacher_probs
from desmatch.errors import UserError
from desmatch.intake import ROLES
from desmatch.model.batch import UNLABELED
from desmatch.model.checkpoints import load_model
from desmatch.pipeline import execute_fold
from desmatch.prepare import touches_fold, training_mask
from desmatch.recipe_file import load_recipe, recipe_path
from desmatch.runs import read_json
from desmatch.stages import load_run
from desmatch.train.pretrain import read_labels
from desmatch.train.trainer import StageTrainer

FOLDS = 2
WEIGHT = 0.75


def words(sample_folder, options, out, *more):
    data = str(sample_folder)
    return ["run", "--recipe", "demo", "--data", data, "--out", str(out), *options, *more]


@pytest.fixture(scope="module")
def options(tiny_options):
    """Every id has a row of its own, so that encoded texts are equal only if the texts are."""
    return [*tiny_options, "--data.min_count=1", "--validation.random_share=0.1",
            f"--validation.num_folds={FOLDS}", "--pretrain.num_evaluations=1",
            "--finetune.num_train_epochs=1", "--finetune.num_evaluations=1"]  # fmt: skip


@pytest.fixture(scope="module")
def teacher(sample_folder, tmp_path_factory, options):
    """An ensemble of two members, each with a model for each fold."""
    folder = tmp_path_factory.mktemp("teacher")
    recipe = yaml.safe_load(recipe_path("demo").read_text())
    recipe["members"] = {"plain": {}, "rare": {"data.min_count": 3, "seed": 1}}
    (folder / "two.yaml").write_text(yaml.safe_dump(recipe))
    command = words(sample_folder, options, folder / "run", "--folds", str(FOLDS))
    command[2] = str(folder / "two.yaml")
    assert main(command) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def student_words(sample_folder, options, teacher):
    def of(out, *more):
        small = ["--model.hidden_size=8", "--model.intermediate_size=16",
                 f"--distill.teacher={teacher}", f"--distill.weight={WEIGHT}"]  # fmt: skip
        return words(sample_folder, options, out, *small, *more)

    return of


@pytest.fixture(scope="module")
def student(student_words, tmp_path_factory):
    """A student of half the width: its folder, and what its stages trained on."""
    out = tmp_path_factory.mktemp("student") / "run"
    trained = {}
    train = StageTrainer.train

    def spying(self, *args, **kwargs):
        trained[self.train_dataset.stage] = self.train_dataset.rows
        return train(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StageTrainer, "train", spying)
        assert main(student_words(out)) == 0
    return out, trained


def texts(pairs, rows):
    """The texts of pairs as tuples of token ids."""
    ids, offsets = pairs.take(np.array(rows))
    return {tuple(ids[start:end].tolist()) for start, end in pairwise(offsets)}


def test_a_soft_label_is_the_mean_of_the_models_that_did_without_the_fold(student, teacher):
    run = load_run(student[0])
    labels = read_labels(run.fold_folder / "soft-labels")
    models = [teacher / "members" / name / "fold-0" / "finetuned" for name in ("plain", "rare")]
    prepared = run.prepared
    probs = {role: teacher_probs(prepared, role, models) for role in ROLES}
    said = [pq.read_table(teacher / "members" / name / "predictions" / "fold-0" / "test.parquet")
            for name in ("plain", "rare")]  # fmt: skip
    mean = np.mean([each["score"].to_numpy() for each in said], axis=0)
    np.testing.assert_allclose(probs["test"], mean, atol=1e-6)
    gold, may_train = prepared.train_column("label"), training_mask(prepared, 0)
    expected = (1 - WEIGHT) * gold + WEIGHT * probs["train"]
    np.testing.assert_allclose(labels["train"][may_train], expected[may_train], rtol=1e-6)
    for role in ("test", "unlabeled"):
        is_heard = labels[role] != UNLABELED
        np.testing.assert_allclose(labels[role][is_heard], probs[role][is_heard], rtol=1e-6)


def test_a_fold_alone_hears_its_teacher_too(student, tmp_path):
    run = dataclasses.replace(load_run(student[0]), folder=tmp_path / "alone")
    model = execute_fold(run, 0)
    weights = [each / "model.safetensors" for each in (model, student[0] / "fold-0" / "finetuned")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_nothing_is_taught_of_rows_that_are_held_out(student):
    out, trained = student
    run = load_run(out)
    prepared = run.prepared
    labels = read_labels(run.fold_folder / "soft-labels")
    fold = prepared.train_column("fold")
    np.testing.assert_array_equal(labels["train"] == UNLABELED, np.isin(fold, (0, RANDOM, CUT)))
    for role in ("test", "unlabeled"):
        np.testing.assert_array_equal(labels[role] == UNLABELED, touches_fold(prepared, role, 0))
    held_out = texts(prepared.encode("train"), np.flatnonzero(fold == 0))
    for stage in ("pretrained", "finetuned"):
        rows = trained[stage]
        labelled = np.flatnonzero(rows.labels != UNLABELED)
        assert not texts(rows.pairs, labelled) & held_out


def test_both_stages_train_on_the_soft_labels_of_all_rows(student):
    out, trained = student
    labels = read_labels(load_run(out).fold_folder / "soft-labels")
    given = np.concatenate([labels[role] for role in ROLES])
    np.testing.assert_array_equal(trained["pretrained"].labels, given)
    np.testing.assert_array_equal(trained["finetuned"].labels, given[given != UNLABELED])
    assert ((given > 0) & (given < 1)).sum() == (given != UNLABELED).sum() > len(labels["test"])


def test_the_student_is_smaller_and_its_card_says_who_taught_it(student):
    out, _ = student
    assert load_model(out / "fold-0" / "finetuned").config.hidden_size == 8
    (figures,) = json.loads((out / "card.json").read_text())["distill"]
    assert figures["teachers"] == ["plain", "rare"]
    assert 0 <= figures["teacher_roc_auc"] <= 1
    assert set(figures["soft_labels"]) == set(ROLES)
    assert len((out / "submission" / "result.tsv").read_text().splitlines()) == 60


def test_an_interrupted_student_ends_like_an_uninterrupted_one(
    student, student_words, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    step = StageTrainer.training_step

    def stumbling(self, *args, **kwargs):
        if "/.finetuned." in self.args.output_dir:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "training_step", stumbling)
        assert main(student_words(out)) == 130
    before = (out / "fold-0" / "soft-labels" / "labels.npz").stat().st_mtime_ns
    assert main([*student_words(out), "--resume"]) == 0
    assert (out / "fold-0" / "soft-labels" / "labels.npz").stat().st_mtime_ns == before
    for name in ("submission/result.tsv", "fold-0/soft-labels/labels.npz",
                 "fold-0/finetuned/model.safetensors"):  # fmt: skip
        assert (out / name).read_bytes() == (student[0] / name).read_bytes()


def changed(run, **values):
    """A run whose recipe's parts differ: part=dict of values."""
    parts = {part: dataclasses.replace(getattr(run.recipe, part), **given)
             for part, given in values.items()}  # fmt: skip
    return dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, **parts))


def test_another_teacher_or_weight_makes_the_students_stages_out_of_date(
    student, teacher, tmp_path
):
    run = load_run(student[0])
    member = str(teacher / "members" / "rare")
    others = [changed(run, distill={"teacher": member}), changed(run, distill={"weight": 0.5})]
    again = tmp_path / "again"
    again.mkdir()
    for name in ("recipe.yaml", "sources.json"):
        shutil.copy(teacher / name, again / name)
    same = changed(run, distill={"teacher": str(again)})
    for stage in ("soft-labels", "pretrained", "finetuned", "predictions"):
        assert len({run.digest(stage), *(each.digest(stage) for each in others)}) == 3
        assert same.digest(stage) == run.digest(stage)  # the models count, not where they lie
    text = (again / "recipe.yaml").read_text()
    (again / "recipe.yaml").write_text(text.replace("learning_rate: 0.003", "learning_rate: 0.002"))
    retrained = changed(run, distill={"teacher": str(again)})
    assert retrained.digest("finetuned") != run.digest("finetuned")
    assert retrained.digest("prepared") == run.digest("prepared")
    without = changed(run, distill={"teacher": None, "weight": 0.5})
    assert without.digest("pretrained") != run.digest("pretrained")


def test_a_run_without_a_teacher_does_not_depend_on_how_it_would_be_taught(finished_run):
    run = load_run(finished_run)
    assert changed(run, distill={"weight": 0.9}).digest("finetuned") == run.digest("finetuned")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"num_folds": 3}, "its folds are others .*--validation.num_folds 2 .*split_seed 0"),
        ({"split_seed": 5}, "its folds are others .*add .*--validation.split_seed 0"),
        ({"random_share": 0.2}, r"its folds are others .*--validation.random_share 0\.1"),
    ],
)
def test_a_teacher_of_other_folds_is_refused(values, reason, student):
    with pytest.raises(UserError, match=rf"--distill.teacher \S+: {reason}"):
        require_teacher(changed(load_run(student[0]), validation=values))


def test_a_teacher_whose_models_saw_the_fold_is_refused(student, finished_run):
    run = changed(load_run(student[0]), distill={"teacher": str(finished_run)})
    fold_1 = changed(run, validation={"fold": 1})
    with pytest.raises(UserError, match=r"has no model that did without fold 1, only for 0; train"):
        require_teacher(fold_1)
    with pytest.raises(UserError, match="no model that did without fold 1"):
        fold_1.digest("finetuned")


def test_a_teacher_of_other_rows_is_refused(finished_run, sample_folder, tmp_path):
    lines = (sample_folder / "train.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "train.tsv").write_text("".join(lines[:-1]))
    taught = changed(load_run(finished_run), distill={"teacher": str(finished_run)})
    run = dataclasses.replace(taught, folder=tmp_path)
    require_teacher(run)
    sources = run.sources._replace(train=(tmp_path / "train.tsv",))
    other = dataclasses.replace(run, sources=sources)
    with pytest.raises(UserError, match="is of other labelled rows than this run; give both"):
        require_teacher(other)


def test_an_unfinished_teacher_is_refused_before_anything_trains(
    student_words, teacher, tmp_path, capsys
):
    half = tmp_path / "half"
    half.mkdir()
    for name in ("recipe.yaml", "sources.json"):
        shutil.copy(teacher / name, half / name)
    out = tmp_path / "run"
    assert main(student_words(out, f"--distill.teacher={half}")) == 2
    error = capsys.readouterr().err
    assert f"{half}/members/plain/fold-0/finetuned is missing or out of date; finish it" in error
    assert not (out / "prepared").exists()
    assert main(student_words(out, f"--distill.teacher={tmp_path}")) == 2
    assert "no run (no recipe.yaml or no sources.json)" in capsys.readouterr().err
    assert main(student_words(teacher, f"--distill.teacher={teacher}")) == 2
    assert "is this very run; name another --out" in capsys.readouterr().err


def test_a_teacher_and_rounds_of_pseudo_labels_exclude_each_other():
    with pytest.raises(UserError, match=r"pseudo_labels\.rounds.*0 with distill\.teacher"):
        load_recipe(recipe_path("semi-supervised"), ["--distill.teacher=runs/teacher"])
    with pytest.raises(UserError, match=r"distill\.weight"):
        load_recipe(recipe_path("demo"), ["--distill.weight=0"])


def test_figures_of_the_soft_labels_count_them(student):
    folder = load_run(student[0]).fold_folder / "soft-labels"
    labels = read_labels(folder)
    counts = {role: int((each != UNLABELED).sum()) for role, each in labels.items()}
    assert read_json(folder / "figures.json")["soft_labels"] == counts
