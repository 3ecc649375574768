from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from desmatch.cli import main
from desmatch.intake import Sources
from desmatch.model.batch import TrainingRows
from desmatch.prepare import Prepared, prepare, training_mask
from desmatch.recipe import DataConfig, Recipe, ValidationConfig
from desmatch.train.augment import closed_rows
from tests.conftest import encode_lists

CLOSURE = Recipe(
    data=DataConfig(min_count=1, augment="closure", augment_cap=1.0),
    validation=ValidationConfig(num_folds=3, random_share=0.0),
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Sixty components of four texts: 1 = 2 = 3 != 4, numbered by hundreds."""
    folder = tmp_path_factory.mktemp("closure")
    rows = [
        f"{100 * k + a}\t{100 * k + b}\t{label}"
        for k in range(1, 61)
        for a, b, label in ((1, 2, 1), (3, 2, 1), (3, 4, 0), (90 + k % 9, 99, k % 2))
    ]
    (folder / "train.tsv").write_text("".join(f"{row}\n" for row in rows))
    (folder / "test.tsv").write_text("1\t2\n")
    out = folder / "prepared"
    out.mkdir()
    prepare(Sources((folder / "train.tsv",), folder / "test.tsv"), CLOSURE, out)
    return Prepared.load(out)


def decoded(prepared, rows):
    """[(a, b, label)] in raw ids of one-id texts."""
    tokens = np.array(prepared.vocabulary.tokens)[rows.pairs.ids]
    return [
        (int(a), int(b), int(label))
        for a, b, label in zip(tokens[::2], tokens[1::2], rows.labels, strict=True)
    ]


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_new_pairs_follow_and_hold_no_text_of_the_fold(prepared, fold):
    new = decoded(prepared, closed_rows(prepared, CLOSURE, fold=fold))
    table = prepared.rows["train"].data.table
    held_out = table.filter(~training_mask(prepared, fold))
    texts = {int(text) for side in ("a", "b") for text in held_out[side].to_pylist()}
    assert len(new) > 20
    for a, b, label in new:
        assert not {a, b} & texts
        assert a // 100 == b // 100
        expected = {frozenset((1, 3)): 1, frozenset((1, 4)): 0, frozenset((2, 4)): 0}
        assert label == expected[frozenset((a % 100, b % 100))]
    given = np.asarray(table.filter(training_mask(prepared, fold))["label"])
    assert np.mean([label for *_, label in new]) == pytest.approx(given.mean(), abs=0.03)


def test_all_stages_get_the_same_pairs(prepared):
    one, two = (decoded(prepared, closed_rows(prepared, CLOSURE, fold=0)) for _ in range(2))
    assert one == two


def test_the_cap_is_kept(prepared):
    recipe = replace(CLOSURE, data=replace(CLOSURE.data, augment_cap=0.1))
    rows = closed_rows(prepared, recipe, fold=0)
    assert 0 < len(rows.labels) <= 0.1 * training_mask(prepared, 0).sum()


def test_without_augmentation_there_is_no_new_pair(prepared):
    recipe = replace(CLOSURE, data=replace(CLOSURE.data, augment="none"))
    none = closed_rows(prepared, recipe, fold=0)
    assert none.pairs.num_pairs == len(none.labels) == 0
    given = TrainingRows(encode_lists([([7], [8, 9])]), np.array([1], np.int8))
    both = given.joined(none)
    np.testing.assert_array_equal(both.pairs.take(np.arange(1)).ids, given.pairs.ids)
    assert both.pairs.num_pairs == 1
    assert both.labels.dtype == np.int8


def test_the_joint_stage_says_how_many_pairs_were_made(sample_folder, tmp_path, tiny_options):
    out = tmp_path / "run"
    words = ["prepare", "--recipe", "demo", "--data", str(sample_folder), "--out", str(out)]
    more = ["--data.augment=closure", "--pretrain.num_train_epochs=0.1"]
    assert main([*words, *tiny_options, *more]) == 0
    assert main(["pretrain", str(out)]) == 0
    figures = json.loads((out / "fold-0" / "pretrained" / "figures.json").read_text())
    assert figures["closed_pairs"] > 0
