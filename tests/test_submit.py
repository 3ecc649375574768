from __future__ import annotations

import errno
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desmatch.disk import DiskError
from desmatch.errors import UserError
from desmatch.submit import check_submission, describe_check, write_scores, write_submission

if TYPE_CHECKING:
    from pathlib import Path

IN_TMP = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def tsv(folder: Path, content: bytes | str) -> Path:
    path = folder / "result.tsv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def packed(folder: Path, members: dict[str, bytes]) -> Path:
    path = folder / "result.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# --- writing --------------------------------------------------------------------------------------


@settings(IN_TMP, max_examples=50)
@given(scores=st.lists(st.floats(0, 1), min_size=2, max_size=20, unique=True))
def test_round_trip(tmp_path: Path, scores: list[float]):
    scores = [0.25, 0.5, *scores]
    path, archive = write_submission(tmp_path, np.array(scores), expected_rows=len(scores))
    assert check_submission(path, expected_rows=len(scores)) == []
    assert check_submission(archive, expected_rows=len(scores)) == []
    read = [float(line) for line in path.read_text().splitlines()]
    np.testing.assert_allclose(read, scores, rtol=5e-9)
    with zipfile.ZipFile(archive) as content:
        assert content.namelist() == ["result.tsv"]
        assert content.read("result.tsv") == path.read_bytes()


def test_the_very_bytes(tmp_path: Path):
    scores = np.array([0.0, -0.0, 1 / 3, 1e-12, 1 - 1e-12, 1.0])
    path, _ = write_submission(tmp_path, scores, expected_rows=6)
    assert path.read_bytes() == b"0\n0\n0.333333333\n1e-12\n1\n1\n"


@pytest.mark.parametrize("start", [0.0, 1e-30, 1e-9, 0.25, 0.5, 0.75, 1 - 1e-5])
def test_neighboring_float32_scores_do_not_tie(tmp_path: Path, start: float):
    """The closest scores a float32 model can give."""
    scores = [np.float32(start)]
    for _ in range(150):
        scores.append(np.nextafter(scores[-1], np.float32(2)))
    path, _ = write_submission(tmp_path, np.array(scores), expected_rows=151)
    assert len(set(path.read_text().splitlines())) == 151


def test_saturated_float64_scores_tie(tmp_path: Path):
    """As documented: 1 - 1e-9 is kept apart from 1, 1 - 1e-12 is not."""
    scores = np.array([1 - 1e-9, 1 - 1e-12, 1.0])
    path, _ = write_submission(tmp_path, scores, expected_rows=3)
    assert path.read_text().splitlines() == ["0.999999999", "1", "1"]


def test_equal_scores_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scores = np.linspace(0, 1, 50)
    _, first = write_submission(tmp_path / "first", scores, expected_rows=50)
    monkeypatch.setattr("time.time", lambda: 2e9)
    _, second = write_submission(tmp_path / "second", scores, expected_rows=50)
    assert first.read_bytes() == second.read_bytes()


REFUSED = {
    "too few": (
        [0.1, 0.2],
        "expected shape (3,), one score for each row of the test file, got (2,); predict that file "
        "again",
    ),
    "two columns": (
        [[0.1, 0.9]] * 3,
        "expected shape (3,), one score for each row of the test file, got (3, 2); predict that "
        "file again",
    ),
    "NaN": (
        [0.1, np.nan, 0.2],
        "expected scores in [0, 1], got nan in row 2 (1 such rows); pass finite probabilities, not "
        "logits",
    ),
    "infinite": (
        [0.1, 0.2, np.inf],
        "expected scores in [0, 1], got inf in row 3 (1 such rows); pass finite probabilities, not "
        "logits",
    ),
    "logits": (
        [0.1, -2.0, 3.0],
        "expected scores in [0, 1], got -2.0 in row 2 (2 such rows); pass finite probabilities, "
        "not logits",
    ),
    "constant": (
        [0.5, 0.5, 0.5],
        "expected scores that differ, got 0.5 everywhere, which ranks nothing; write the "
        "probabilities of the model",
    ),
    "constant as written": (
        [1.0, 1 - 1e-12, 1.0],
        "expected scores that differ, got 1 everywhere, which ranks nothing; write the "
        "probabilities of the model",
    ),
}


@pytest.mark.parametrize(("scores", "reason"), REFUSED.values(), ids=REFUSED)
def test_refusals_leave_what_was_there(tmp_path: Path, scores: list[float], reason: str):
    old = tsv(tmp_path, "old")
    with pytest.raises(UserError) as caught:
        write_submission(tmp_path, np.array(scores), expected_rows=3)
    assert str(caught.value) == f"{old}: {reason}"
    assert list(tmp_path.iterdir()) == [old]
    assert old.read_text() == "old"


def test_a_failed_zip_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full_disk(*_: object, **__: object):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full_disk)
    with pytest.raises(DiskError, match=r"result\.zip: cannot be written: No space left"):
        write_submission(tmp_path, np.array([0.1, 0.2]), expected_rows=2)
    assert list(tmp_path.iterdir()) == []


def test_scores_alone(tmp_path: Path):
    path = tmp_path / "new" / "scores.txt"
    chunks = [np.array([0.5], np.float32), np.array([0.25, 1.0])]
    write_scores(path, iter(chunks))
    assert path.read_bytes() == b"0.5\n0.25\n1\n"
    with pytest.raises(UserError, match=r"scores\.txt: expected scores in .*, got nan in row 3"):
        write_scores(path, [np.array([0.1]), np.array([0.2, np.nan])])
    with pytest.raises(UserError, match=r"scores\.txt: expected scores that differ, got 0\.5"):
        write_scores(path, [np.array([0.5]), np.array([0.5])])
    assert path.read_bytes() == b"0.5\n0.25\n1\n"


# --- checking -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["0.1\n.5\n1.\n", "0.1\r\n0.5\r\n1\r\n", "1e-9\n+0.5\n1E0", "0\n1\n1\n"]
)
def test_good_submission(tmp_path: Path, content: str):
    path = tsv(tmp_path, content)
    assert check_submission(path, expected_rows=3) == []
    archive = packed(tmp_path, {"folder/": b"", "folder/x.tsv": content.encode()})
    assert check_submission(archive, expected_rows=3) == []


BAD_LINES = {
    "": "expected one number, got an empty line; remove it or write the score",
    " ": "expected one number, got an empty line; remove it or write the score",
    "nan": "expected a finite number, got 'nan'; mend the model or the average",
    "-inf": "expected a finite number, got '-inf'; mend the model or the average",
    "Infinity": "expected a finite number, got 'Infinity'; mend the model or the average",
    "1.5": "expected a probability in [0, 1], got 1.5; pass logits through a sigmoid",
    "-1e-3": "expected a probability in [0, 1], got -1e-3; pass logits through a sigmoid",
    "1e999": "expected a probability in [0, 1], got 1e999; pass logits through a sigmoid",
    "0.1\t1": r"expected one number, got several columns ('0.1\t1'); keep the score alone",
    "7,0.1": "expected one number, got several columns ('7,0.1'); keep the score alone",
    "word": "expected one number, got 'word'; write a probability such as 0.25",
    "1_0": "expected one number, got '1_0'; write a probability such as 0.25",
    " 0.5": "expected one number, got ' 0.5'; write a probability such as 0.25",
    "\u0663": "expected one number, got '\u0663'; write a probability such as 0.25",
}


@pytest.mark.parametrize(("line", "reason"), BAD_LINES.items())
def test_bad_line(tmp_path: Path, line: str, reason: str):
    path = tsv(tmp_path, f"0.1\n0.2\n{line}\n0.4\n")
    assert check_submission(path, expected_rows=4) == [f"{path}:3: {reason}"]
    archive = packed(tmp_path, {"result.tsv": path.read_bytes()})
    assert check_submission(archive, expected_rows=4) == [f"{archive}:3: {reason}"]


@pytest.mark.parametrize("header", ["score", "id\tprobability"])
def test_header(tmp_path: Path, header: str):
    path = tsv(tmp_path, f"{header}\n0.1\n0.2\n")
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected 2 lines, one for each row of the test file, got 3; predict that file "
        "again",
        f"{path}:1: expected one number, got what looks like a header ({header!r}); remove this "
        "line",
    ]


def test_file_level_problems(tmp_path: Path):
    path = tsv(tmp_path, "0.5\n0.5\n")
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected scores that differ, got 0.5 everywhere, which ranks nothing; write the "
        "probabilities of the model"
    ]
    path = tsv(tmp_path, b"0.5\n0.\xff\n")
    assert check_submission(path, expected_rows=2) == [
        f"{path}:2: expected UTF-8, got other bytes; write it again"
    ]
    path = tsv(tmp_path, "")
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected one probability a line, got an empty file; write it again"
    ]
    assert check_submission(tmp_path / "missing", expected_rows=2) == [
        f"{tmp_path / 'missing'}: no such file; check the name"
    ]
    assert check_submission(tmp_path, expected_rows=2) == [
        f"{tmp_path}: cannot be read (Is a directory); check the file"
    ]


def test_zip_problems(tmp_path: Path):
    path = packed(tmp_path, {})
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected one file in the zip, got 0 (nothing); pack result.tsv alone"
    ]
    path = packed(tmp_path, {"a.tsv": b"0\n1\n", "b.tsv": b"0\n1\n"})
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected one file in the zip, got 2 (a.tsv, b.tsv); pack result.tsv alone"
    ]
    path.write_bytes(b"0\n1\n")
    assert check_submission(path, expected_rows=2) == [
        f"{path}: not a readable zip (File is not a zip file); pack it again"
    ]


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("desmatch.submit.MAX_BYTES", 1000)
    path = packed(tmp_path, {"result.tsv": b"0.5\n" * 1000})
    assert check_submission(path, expected_rows=2) == [
        f"{path}: expected one probability a line, got more than 1000 bytes; write it again"
    ]


@settings(IN_TMP, max_examples=200)
@given(data=st.data())
def test_damaged_files_give_problems_not_tracebacks(tmp_path: Path, data: st.DataObject):
    scores = np.linspace(0, 1, 9)
    path = write_submission(tmp_path, scores, expected_rows=9)[data.draw(st.integers(0, 1))]
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert all(problem.startswith(str(path)) for problem in check_submission(path, expected_rows=9))


# --- the message of the command -------------------------------------------------------------------


def test_message_of_a_good_file(tmp_path: Path):
    test = tmp_path / "test.tsv"
    test.write_text("1\t2\n3\t4\n5\t6\n")
    path = tsv(tmp_path, "0.125\n0.5\n0.25\n")
    assert describe_check(path, test) == (
        f"{path}: 3 scores for the 3 rows of {test}, from 0.125 to 0.5, 100.0% of them distinct; "
        "the format is right.\n"
        "The file cannot show whether its rows are in the order of the test file: write it from "
        "predictions of that very file."
    )


def test_message_warns_of_ties(tmp_path: Path):
    test = tmp_path / "test.tsv"
    test.write_text("1\t2\n" * 5)
    path = tsv(tmp_path, "0\n1\n1\n0\n1\n")
    assert describe_check(path, test).splitlines()[-1] == (
        "Warning: only 40.0% of the scores are distinct, and rows with equal scores are not "
        "ranked, which lowers the AUC; write probabilities with nine digits."
    )


def test_message_of_a_bad_file_or_test(tmp_path: Path):
    test = tmp_path / "test.tsv"
    test.write_text("1\t2\n" * 30)
    path = tsv(tmp_path, "x1\n" * 30)
    with pytest.raises(UserError) as caught:
        describe_check(path, test)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}:1: expected one number, got 'x1'")
    assert lines[20] == "... and 10 more"
    with pytest.raises(UserError, match=r"missing\.tsv: no such file"):
        describe_check(path, tmp_path / "missing.tsv")
