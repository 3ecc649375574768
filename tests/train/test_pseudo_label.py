from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.cli import main
from desmatch.model.batch import UNLABELED
from desmatch.prepare import Prepared, touches_fold
from desmatch.train import finetune
from desmatch.train.pseudo_label import choose_pseudo_labels


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
    gold, both = seen["finetuned"].labels, seen["pseudo-labeled"].labels
    np.testing.assert_array_equal(both[: len(gold)], gold)
    with np.load(out / "fold-0" / "pseudo-labeled-1-joint" / "labels.npz") as kept:
        given_labels = np.concatenate([kept["test"], kept["unlabeled"]])
    beside = both[len(gold) :]
    np.testing.assert_array_equal(beside, given_labels[given_labels != UNLABELED])
    assert len(beside)
    assert np.isin(beside, (0, 1)).all() == (kind == "hard")
