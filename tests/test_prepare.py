from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from desmatch.data.split import CUT, RANDOM
from desmatch.errors import UserError
from desmatch.intake import Sources
from desmatch.prepare import FIGURES, Prepared, prepare, training_mask
from desmatch.recipe import Recipe, ValidationConfig


def prepared_of(tmp_path, train, test=("1 2\t3",), unlabeled=None, **validation):
    files = {}
    for role, lines in (("train", train), ("test", test), ("unlabeled", unlabeled)):
        if lines is not None:
            files[role] = tmp_path / f"{role}.tsv"
            files[role].write_text("".join(f"{line}\n" for line in lines))
    sources = Sources(
        (files["train"],), files["test"], (files["unlabeled"],) if unlabeled is not None else ()
    )
    folder = tmp_path / "prepared"
    folder.mkdir()
    recipe = Recipe(validation=ValidationConfig(**{"num_folds": 2, **validation}))
    prepare(sources, recipe, folder)
    return folder


def pairs_of(num_rows):
    return [f"{row} 1000\t{row} 2000\t{row // 2 % 2}" for row in range(num_rows)]


def test_ids_of_all_files_are_counted(tmp_path):
    train = [f"{row}\t7 {row}\t{row % 2}" for row in range(100, 110)]
    folder = prepared_of(tmp_path, train, test=["7 8\t8"], unlabeled=["8 8\t8"])
    vocabulary = Prepared.load(folder).vocabulary
    assert dict(zip(vocabulary.ids, vocabulary.counts, strict=True)) == {"7": 11, "8": 5}


def test_features_count_rare_ids_over_all_files(tmp_path):
    train = [f"{row}\t7 {row}\t{row % 2}" for row in range(100, 110)]
    folder = prepared_of(tmp_path, train, test=["7 8\t8"], unlabeled=["8 8\t8"])
    prepared = Prepared.load(folder)
    assert prepared.row_features("train")["rarest_count"].tolist() == [2] * 10
    assert prepared.row_features("test")["rarest_count"].tolist() == [5]
    assert prepared.row_features("unlabeled")["length"].tolist() == [3]


def test_a_run_without_unlabelled_rows(tmp_path):
    prepared = Prepared.load(prepared_of(tmp_path, pairs_of(12)))
    assert len(prepared.rows["unlabeled"]) == 0
    assert prepared.encode("unlabeled").num_pairs == 0


def test_all_pairs_that_share_a_text_are_one_component_and_are_cut(tmp_path):
    star = [f"1\t{row}\t{row % 2}" for row in range(2, 40)]
    chain = [f"{row}\t{row + 1}\t{row % 2}" for row in range(100, 140)]
    folder = prepared_of(tmp_path, star + chain)
    prepared = Prepared.load(folder)
    figures = json.loads((folder / FIGURES).read_text())
    fold = prepared.train_column("fold")
    assert figures["graph"]["cut_rows"] == (fold == CUT).sum() > 0
    assert any("were cut" in warning for warning in figures["warnings"])
    mask = training_mask(prepared, 0)
    assert not mask[fold == CUT].any()
    assert not mask[fold == 0].any()
    assert mask[fold == 1].all()


def test_known_queries_of_the_test_are_counted(tmp_path):
    train = pairs_of(12)
    test = ["3 1000\t5 2000", "3 1000\tx", "y\tz", "4 2000\tq"]
    figures = json.loads((prepared_of(tmp_path, train, test) / FIGURES).read_text())["graph"]
    assert figures["test_rows_with_known_query"] == 3
    assert figures["test_rows_with_both_known"] == 1


def test_rows_like_those_of_the_test_weigh_more(tmp_path):
    short = [f"{row}\t{row + 1000}\t{row % 2}" for row in range(60)]
    long = [f"{row} 1 2 3\t{row + 1000} 1 2 4\t{row % 2}" for row in range(60, 100)]
    test = [f"{row} 1 2 3\t{row + 1000} 1 2 4" for row in range(100, 160)]
    folder = prepared_of(tmp_path, short + long, test)
    weight = Prepared.load(folder).train_column("weight")
    figures = json.loads((folder / FIGURES).read_text())
    assert weight.mean() == pytest.approx(1)
    assert weight[60:].min() > 2 * weight[:60].max()
    drift = figures["drift"]
    assert drift["interval"][0] < drift["auc"] < drift["interval"][1]
    assert drift["features"][0]["name"] in ("length", "overlap", "rarest_count", "mean_log_count")
    assert 0.3 < drift["effective_share"] < 0.6
    assert any("told apart with an AUC of" in warning for warning in figures["warnings"])


@pytest.mark.parametrize(
    ("train", "reason"),
    [
        ([f"{row}\t{row}\t1" for row in range(10)], "every label is 1"),
        (["1\t2\t0", "1\t3\t1"], "cannot fill"),
        ([f"{row}\t{row}\t{int(row == 0)}" for row in range(10)], "not both labels"),
    ],
)
def test_labels_that_cannot_validate_are_refused(tmp_path, train, reason):
    refusals = [
        refusal
        for fold in (0, 1)  # a single positive row lies in one of them
        if (refusal := refusal_of(tmp_path / str(fold), train, fold))
    ]
    assert refusals
    assert all(reason in refusal and "train: " in refusal for refusal in refusals)


def test_random_rows_that_cannot_stand_for_a_test_are_refused_before_any_training(tmp_path):
    apart = [f"{row}\t{row + 1000}\t{row % 2}" for row in range(40)]
    with pytest.raises(UserError, match=r"set --validation.random_share higher, or to 0"):
        prepared_of(tmp_path, apart, random_share=0.5)  # no row shares a query with another


def test_random_rows_of_both_kinds_are_held_out(tmp_path):
    chains = [f"{row // 3}\t{row + 1000}\t{row // 2 % 2}" for row in range(90)]
    train = chains + [f"{row + 5000}\t{row + 6000}\t{row % 2}" for row in range(60)]
    fold = Prepared.load(prepared_of(tmp_path, train, random_share=0.3)).train_column("fold")
    assert (fold == RANDOM).sum() == round(0.3 * len(fold))


def refusal_of(folder, train, fold):
    folder.mkdir()
    try:
        prepared_of(folder, train, fold=fold)
    except UserError as error:
        return str(error)
    return None


def test_runs_of_one_split_seed_hold_out_the_same_rows(tmp_path):
    def folds(name, seed, **validation):
        folder = tmp_path / name
        folder.mkdir()
        train = folder / "train.tsv"
        train.write_text("".join(f"{row}\t{row} 1\t{row // 2 % 2}\n" for row in range(400)))
        (folder / "test.tsv").write_text("1 2\t3\n7\t5\n")
        config = ValidationConfig(num_folds=4, **validation)
        recipe = Recipe(seed=seed, validation=config)
        out = folder / "prepared"
        out.mkdir()
        prepare(Sources((train,), folder / "test.tsv"), recipe, out)
        return Prepared.load(out).train_column("fold")

    first = folds("first", 1)
    np.testing.assert_array_equal(folds("same", 2, split_seed=1), first)
    assert (folds("other", 2) != first).any()


def test_a_broken_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"cannot be read .*run `desmatch prepare`"):
        Prepared.load(tmp_path)


@pytest.mark.parametrize("role", ["train", "test", "unlabeled"])
def test_damaged_text_is_found_out_before_it_is_read(tmp_path, role):
    folder = prepared_of(tmp_path, pairs_of(12), unlabeled=["7 8\t8", "9\t7 7", "8\t9"])
    (path,) = (folder / role).glob("*.arrow")
    lengths = [len(text) for text in Prepared.load(folder).rows[role]["a"]]
    ends = np.cumsum([0, *lengths], dtype="<i4")
    sound, ends[1] = ends.tobytes(), 1 << 30
    content = path.read_bytes()
    assert sound in content
    path.write_bytes(content.replace(sound, ends.tobytes()))
    with pytest.raises(UserError, match=r"cannot be read .* older version made it; delete it"):
        Prepared.load(folder)


def test_a_folder_of_an_older_version_is_refused(tmp_path):
    folder = prepared_of(tmp_path, pairs_of(12))
    rows = Prepared.load(folder).rows["train"].remove_columns("weight")
    rows.save_to_disk(str(tmp_path / "older"))
    shutil.rmtree(folder / "train")
    (tmp_path / "older").rename(folder / "train")
    with pytest.raises(UserError, match=r"older version, without weight; delete it"):
        Prepared.load(folder)


def test_rows_without_labels_that_are_not_whole_are_refused(tmp_path):
    folder = prepared_of(tmp_path, pairs_of(12), unlabeled=["7 8\t8"])
    prepared = Prepared.load(folder)
    expected = prepared.vocabulary.encode(["7 8"], ["8"])
    assert prepared.encode("unlabeled").ids.tolist() == expected.ids.tolist()
    (folder / "unlabeled" / "ids.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"cannot be read .* older version made it; delete it"):
        prepared.encode("unlabeled")
    (folder / "id-counts.parquet").unlink()
    with pytest.raises(UserError, match=r"cannot be read .* older version made it; delete it"):
        Prepared.load(folder).row_features("train")
    (folder / "unlabeled" / "rows.arrow").unlink()
    with pytest.raises(UserError, match=r"cannot be read .* older version made it; delete it"):
        Prepared.load(folder)


def test_every_role_is_encoded_by_the_vocabulary_of_all(finished_run):
    prepared = Prepared.load(finished_run / "prepared")
    for role in ("train", "test", "unlabeled"):
        encoded = prepared.encode(role)
        assert encoded.num_pairs == len(prepared.rows[role])
        assert encoded.ids.max() < prepared.vocabulary.size
    assert np.isin(prepared.train_column("fold"), [0, 1, 2]).all()
