from __future__ import annotations

import hashlib

import numpy as np
import pytest

from desmatch.errors import UserError, listed, nearest
from desmatch.runs import (
    StageFolder,
    atomic_folder,
    atomic_write,
    file_digest,
    generator,
    read_json,
    value_digest,
    write_json,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail():
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_failed_folder_leaves_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "folder"
    with atomic_folder(path) as partial:
        (partial / "x").write_text("old")

    def fail():
        with atomic_folder(path) as partial:
            (partial / "y").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [each.name for each in path.iterdir()] == ["x"]
    assert [each.name for each in tmp_path.iterdir()] == ["folder"]


def test_a_replaced_folder_keeps_nothing_of_the_old_one(tmp_path):
    for name in ("x", "y"):
        with atomic_folder(tmp_path / "folder") as partial:
            (partial / name).touch()
    assert [each.name for each in (tmp_path / "folder").iterdir()] == ["y"]


def test_json_refuses_nan_and_names_the_broken_line(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"auc": float("nan")})
    assert not list(tmp_path.iterdir())
    (tmp_path / "b.json").write_text('{\n"a": }')
    with pytest.raises(UserError, match=r"b\.json:2: not valid JSON"):
        read_json(tmp_path / "b.json")
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "c.json")


def test_digests(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"pairs")
    assert file_digest(path) == hashlib.sha256(b"pairs").hexdigest()
    assert value_digest({"a": 1, "b": 2}) == value_digest({"b": 2, "a": 1})
    assert value_digest({"a": 1}) != value_digest({"a": 2})


def test_generators_of_different_purposes_differ():
    def draw(*path):
        return generator(7, *path).random(3)

    np.testing.assert_array_equal(draw("batch", 1), draw("batch", 1))
    assert not np.array_equal(draw("batch", 1), draw("batch", 2))
    assert not np.array_equal(draw("batch", 1), draw("epoch", 1))


def test_a_stage_is_finished_when_its_digest_is_there(tmp_path):
    stage = StageFolder(tmp_path / "stage", "digest")
    assert not stage.is_finished
    stage.begin()
    with stage.finish() as partial:
        (partial / "x").touch()
        assert not stage.is_finished
    assert stage.is_finished
    assert not stage.work.exists()
    assert not StageFolder(tmp_path / "stage", "other").is_finished


def test_interrupted_work_is_continued_only_when_asked(tmp_path):
    stage = StageFolder(tmp_path / "stage", "digest")
    stage.begin()
    stage.begin()  # nothing is lost where there is no checkpoint yet
    (stage.work / "checkpoint-5").mkdir()
    with pytest.raises(UserError, match="add --resume to go on with it"):
        stage.begin()
    StageFolder(tmp_path / "stage", "digest", may_resume=True).begin()
    assert (stage.work / "checkpoint-5").exists()
    StageFolder(tmp_path / "stage", "other", may_resume=True).begin()
    assert not (stage.work / "checkpoint-5").exists()


def test_listed_counts_what_it_does_not_show():
    assert listed(["a", "b"]) == "a\nb"
    assert listed([str(i) for i in range(25)]).endswith("19\n... and 5 more")


def test_nearest_suggests_or_keeps_silent():
    assert nearest("sede", ["seed", "data"]) == "; did you mean 'seed'?"
    assert nearest("xyz", ["seed"]) == ""


def finished_stage(folder, digest):
    stage = StageFolder(folder, digest)
    with stage.finish() as made:
        (made / "model" / "deep").mkdir(parents=True)
        (made / "model" / "deep" / "weights").write_bytes(b"1234")
    return stage


def test_a_finished_stage_is_taken_over_by_links(tmp_path):
    finished_stage(tmp_path / "one" / "stage", "a")
    stage = StageFolder(tmp_path / "other" / "stage", "a")
    stage.begin()
    assert stage.adopt(tmp_path / "one" / "stage")
    assert stage.is_finished
    assert not stage.work.exists()
    ours, theirs = (tmp_path / run / "stage" / "model/deep/weights" for run in ("other", "one"))
    assert ours.samefile(theirs)
    assert not (stage.path / "stage.json").samefile(tmp_path / "one" / "stage" / "stage.json")


def test_files_are_copied_where_they_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*paths):
        raise OSError(18, "Invalid cross-device link", *paths)

    monkeypatch.setattr("desmatch.runs.os.link", refuse)
    finished_stage(tmp_path / "one", "a")
    stage = StageFolder(tmp_path / "other", "a")
    assert stage.adopt(tmp_path / "one")
    ours, theirs = (tmp_path / run / "model/deep/weights" for run in ("other", "one"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert not ours.samefile(theirs)


@pytest.mark.parametrize("digest", ["b", None])
def test_a_stage_of_another_digest_is_left_alone(tmp_path, digest):
    if digest is not None:
        finished_stage(tmp_path / "one", digest)
    stage = finished_stage(tmp_path / "other", "of older options")
    stage = StageFolder(stage.path, "a")
    assert not stage.adopt(tmp_path / "one")
    assert not stage.is_finished
    assert (stage.path / "model/deep/weights").is_file()
