from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from desmatch.cli import main
from desmatch.model.batch import UNLABELED
from desmatch.prepare import Prepared, touches_fold
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
