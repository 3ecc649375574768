from __future__ import annotations

import dataclasses
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.cli import main
from desmatch.metrics.roc import roc_auc
from desmatch.model.batch import UNLABELED
from desmatch.predict import honest_scores
from desmatch.prepare import Prepared, touches_fold
from desmatch.runs import StageFolder, generator, read_json
from desmatch.stages import load_run
from desmatch.train import finetune, pseudo_label
from desmatch.train.pseudo_label import choose_pseudo_labels
from desmatch.train.trainer import StageTrainer
from desmatch.train.validation import read_evaluations


@given(
    num_rows=st.integers(1, 200),
    share=st.floats(0.05, 1),
    positive_share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_the_surest_rows_get_labels_in_the_ratio_of_the_classes(
    num_rows, share, positive_share, seed
):
    rng = np.random.default_rng(seed)
    scores, allowed = rng.random(num_rows), rng.random(num_rows) < 0.8
    labels = choose_pseudo_labels(
        scores, share=share, positive_share=positive_share, allowed=allowed
    )
    assert (labels[~allowed] == UNLABELED).all()
    given_labels = labels != UNLABELED
    assert given_labels.sum() == round(share * allowed.sum())
    assert (labels == 1).sum() == round(positive_share * given_labels.sum())
    for above, below in ((1, UNLABELED), (UNLABELED, 0), (1, 0)):
        high, low = scores[allowed & (labels == above)], scores[allowed & (labels == below)]
        assert not len(high) or not len(low) or high.min() >= low.max()


@given(confidence=st.floats(0.55, 0.99), positive_share=st.floats(0.1, 0.9), seed=st.integers(0, 9))
def test_no_label_is_less_probable_than_the_confidence(confidence, positive_share, seed):
    scores = np.random.default_rng(seed).beta(0.4, 0.6, size=300)
    labels = choose_pseudo_labels(
        scores,
        share=1.0,
        positive_share=positive_share,
        allowed=np.ones(300, bool),
        confidence=confidence,
    )
    chosen = labels != UNLABELED
    of_label = np.where(labels == 1, scores, 1 - scores)[chosen]
    assert (of_label >= confidence).all()
    assert (labels == 1).sum() == pytest.approx(positive_share * chosen.sum(), abs=0.5)
    sure = (scores >= confidence).sum(), (scores <= 1 - confidence).sum()
    exhausted = min(sure[0] / positive_share, sure[1] / (1 - positive_share))
    assert chosen.sum() == int(exhausted)


def test_rows_that_share_a_query_with_the_held_out_fold_are_found(finished_run):
    prepared = Prepared.load(finished_run / "prepared")
    train = prepared.rows["train"]
    fold = prepared.train_column("fold")
    held_out = {text for row in np.flatnonzero(fold == 0) for text in
                (train[int(row)]["a"], train[int(row)]["b"])}  # fmt: skip
    for role in ("test", "unlabeled"):
        expected = [row["a"] in held_out or row["b"] in held_out for row in prepared.rows[role]]
        assert touches_fold(prepared, role, 0).tolist() == expected


def test_a_run_with_a_round_of_pseudo_labels(sample_folder, tmp_path, tiny_options):
    out = tmp_path / "run"
    words = ["run", "--recipe", "semi-supervised", "--data", str(sample_folder), "--out", str(out)]
    more = ["--pseudo_labels.training.num_train_epochs=0.5", "--pseudo_labels.share=0.25"]
    assert main([*words, *tiny_options, *more]) == 0
    figures = json.loads((out / "fold-0" / "pseudo-labeled-1-joint" / "figures.json").read_text())
    prepared = Prepared.load(out / "prepared")
    allowed = sum((~touches_fold(prepared, role, 0)).sum() for role in ("test", "unlabeled"))
    labelled = figures["pseudo_positives"] + figures["pseudo_negatives"]
    assert labelled == pytest.approx(0.25 * allowed, abs=2)
    card = json.loads((out / "card.json").read_text())
    assert any("pseudo-labels" in warning for warning in card["warnings"])
    assert [(each["fold"], each["round"]) for each in card["pseudo_labels"]] == [(0, 0), (0, 1)]
    assert "Rounds of pseudo-labels" in (out / "report.html").read_text()
    assert (out / "submission" / "result.tsv").is_file()


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_labels_of_a_round_reach_the_stage_on_labels(
    kind, sample_folder, tmp_path, tiny_options, monkeypatch
):
    seen = {}
    train = finetune.train_stage

    def watched(model, batches, *rest, **named):
        seen[named["stage"].path.name] = batches.rows
        return train(model, batches, *rest, **named)

    monkeypatch.setattr(finetune, "train_stage", watched)
    out = tmp_path / "run"
    words = ["run", "--recipe", "semi-supervised", "--data", str(sample_folder), "--out", str(out)]
    more = ["--pseudo_labels.training.num_train_epochs=0.5", "--pseudo_labels.share=0.25",
            f"--pseudo_labels.kind={kind}", "--pseudo_labels.in_finetune=true"]  # fmt: skip
    assert main([*words, *tiny_options, *more]) == 0
    gold, both = seen["finetuned"].labels, seen["pseudo-labeled-1"].labels
    np.testing.assert_array_equal(both[: len(gold)], gold)
    with np.load(out / "fold-0" / "pseudo-labeled-1-joint" / "labels.npz") as kept:
        given_labels = np.concatenate([kept["test"], kept["unlabeled"]])
    beside = both[len(gold) :]
    np.testing.assert_array_equal(beside, given_labels[given_labels != UNLABELED])
    assert len(beside)
    assert np.isin(beside, (0, 1)).all() == (kind == "hard")


def folder_bytes(folder):
    return {path.relative_to(folder): path.read_bytes()
            for path in sorted(folder.rglob("*")) if path.is_file()}  # fmt: skip


def rounds_with(monkeypatch, aucs):
    """Let the models of the rounds have these AUC, whatever they say."""
    given = iter(aucs)
    monkeypatch.setattr(pseudo_label, "roc_auc", lambda *_: next(given))


@pytest.fixture
def pretend(finished_run, tmp_path, monkeypatch):
    """What is left of some rounds with given AUC: (folder, figures, the rounds' starts).

    A round copies the model that it starts from, and writes its own number into it.
    """

    def run_rounds(aucs, *, keep="best", **changes):
        starts = []

        def train_round(prepared, recipe, start, stage, *, fold):
            del prepared, recipe, fold
            starts.append(start.name)
            shutil.copytree(start, stage.path)
            (stage.path / "round").write_text(stage.path.name)
            (stage.path.with_name(f"{stage.path.name}-joint")).mkdir()
            joint = stage.path.with_name(f"{stage.path.name}-joint")
            (joint / "figures.json").write_text('{"pseudo_positives": 3}')
            return stage.path

        rounds_with(monkeypatch, aucs)
        monkeypatch.setattr(pseudo_label, "_train_round", train_round)
        run = load_run(finished_run)
        settings = dataclasses.replace(run.recipe.pseudo_labels, rounds=len(aucs) - 1, **changes)
        recipe = dataclasses.replace(
            run.recipe,
            pseudo_labels=settings,
            finetune=dataclasses.replace(run.recipe.finetune, keep=keep),
        )
        stage = StageFolder(tmp_path / "pseudo-labeled", "digest")
        pseudo_label.pseudo_label(run.prepared, recipe, run.last_model, stage, fold=0)
        figures = read_json(stage.path / "figures.json")["rounds"]
        return SimpleNamespace(folder=stage.path, rounds=figures, starts=starts)

    return run_rounds


@pytest.mark.parametrize(
    ("aucs", "num_made", "kept"),
    [
        ([0.6, 0.7, 0.8, 0.9], 3, 3),
        ([0.6, 0.7, 0.7, 0.9], 2, 1),  # as good is no gain
        ([0.6, 0.7, 0.8, 0.75], 3, 2),
        ([0.6, 0.5, 0.9, 0.9], 1, 0),
    ],
)
def test_rounds_end_with_the_first_that_brings_no_gain(aucs, num_made, kept, pretend):
    made = pretend(aucs)
    assert [each["roc_auc"] for each in made.rounds] == aucs[: num_made + 1]
    assert [each["is_kept"] for each in made.rounds].index(True) == kept
    assert sum(each["is_kept"] for each in made.rounds) == 1
    names = ["finetuned", *(f"pseudo-labeled-{number}" for number in range(1, num_made))]
    assert made.starts == names
    own = made.folder / "round"
    assert own.read_text() == f"pseudo-labeled-{kept}" if kept else not own.exists()
    assert all(each["pseudo_positives"] == 3 for each in made.rounds[1:])


def test_without_stop_all_rounds_are_made_and_the_last_is_kept(pretend):
    made = pretend([0.6, 0.5, 0.4], stop=False)
    assert [each["is_kept"] for each in made.rounds] == [False, False, True]
    assert (made.folder / "round").read_text() == "pseudo-labeled-2"
    assert len(read_evaluations(made.folder)) == 3  # those of the last round alone


@pytest.mark.parametrize(("keep", "of_each"), [("best", 3), ("last", 1)])
def test_all_models_that_a_round_was_chosen_among_are_kept_for_the_honest_score(
    keep, of_each, pretend
):
    made = pretend([0.6, 0.7, 0.65], keep=keep)
    assert len(read_evaluations(made.folder)) == 3 * of_each


@pytest.fixture(scope="module")
def fine_tuned(sample_folder, tmp_path_factory, tiny_options):
    """A run up to its first round, and the words that go on with it."""
    out = tmp_path_factory.mktemp("rounds") / "run"
    words = ["run", "--recipe", "semi-supervised", "--data", str(sample_folder), *tiny_options,
             "--pseudo_labels.training.num_train_epochs=0.5", "--pseudo_labels.rounds=2",
             "--pseudo_labels.training.num_evaluations=2",
             "--finetune.num_train_epochs=1"]  # fmt: skip
    assert main([*words, "--out", str(out), "--pseudo_labels.rounds=0"]) == 0
    return out, words


@pytest.fixture(scope="module")
def two_rounds(fine_tuned, tmp_path_factory):
    """Both rounds, each with a gain."""
    out, words = fine_tuned
    whole = tmp_path_factory.mktemp("rounds") / "whole"
    shutil.copytree(out, whole)
    with pytest.MonkeyPatch.context() as patch:
        rounds_with(patch, [0.5, 0.6, 0.7])
        assert main([*words, "--out", str(whole)]) == 0
    return whole


@pytest.mark.parametrize("part", ["1", "2-joint", "2"])
def test_rounds_that_were_interrupted_end_like_uninterrupted_ones(
    part, fine_tuned, two_rounds, tmp_path, monkeypatch
):
    out, words = fine_tuned
    cut = tmp_path / "run"
    shutil.copytree(out, cut)
    step = StageTrainer.training_step

    def stumbling(self, *args, **kwargs):
        is_part = self.args.output_dir.endswith(f"/.pseudo-labeled-{part}.making")
        if is_part and self.state.global_step == self.args.save_steps + 1:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        rounds_with(patch, [0.5, 0.6, 0.7])
        patch.setattr(StageTrainer, "training_step", stumbling)
        assert main([*words, "--out", str(cut)]) == 130
    assert list(cut.glob(f"fold-0/.pseudo-labeled-{part}.making/checkpoint-*"))
    with monkeypatch.context() as patch:
        rounds_with(patch, [0.5, 0.6, 0.7])
        assert main([*words, "--out", str(cut), "--resume"]) == 0
    for name in ("fold-0/pseudo-labeled", "predictions", "submission"):
        ours, theirs = (folder_bytes(each / name) for each in (cut, two_rounds))
        assert ours.keys() == theirs.keys()
        differing = {path.name for path in ours if ours[path] != theirs[path]}
        has_minutes = {"card.json", "stage.json"} if name == "submission" else set()
        assert differing <= has_minutes
    assert not list(cut.rglob(".*.making"))


def test_the_honest_score_covers_the_choice_among_rounds(two_rounds):
    run = load_run(two_rounds)
    evaluations = read_evaluations(run.last_model)
    assert len(evaluations) == 3 * 3  # before, and after each of two rounds
    table = pq.read_table(two_rounds / "predictions" / "validation.parquet")
    labels, groups, honest, scores = (
        table[name].to_numpy() for name in ("label", "group", "honest_score", "score")
    )
    expected = honest_scores(
        np.stack([each.scores for each in evaluations]),
        labels,
        groups,
        rng=generator(run.recipe.seed, "honest"),
    )
    np.testing.assert_array_equal(honest, expected)
    best = max(roc_auc(labels, each.scores) for each in evaluations)
    assert roc_auc(labels, honest) <= best
    assert not np.array_equal(honest, scores)
