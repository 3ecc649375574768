from __future__ import annotations

import dataclasses
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from desmatch import bulk, matcher
from desmatch.bulk import Manner, Scorer, predict_file
from desmatch.cli import main
from desmatch.data import sources
from desmatch.errors import UserError
from desmatch.model import scoring
from desmatch.pipeline import execute
from desmatch.predict import predict_texts
from desmatch.runs import CLOSURE, TEST, read_json
from desmatch.serve.session import ServedModel
from desmatch.stages import load_run
from desmatch.temporary import temporary

DEAD = 1 << 22  # above the highest process id of Linux


@pytest.fixture(scope="module")
def run(finished_run):
    return load_run(finished_run)


@pytest.fixture
def test_file(sample_folder):
    return sample_folder / "test.tsv"


@pytest.fixture(scope="module")
def in_memory(run, sample_folder):
    """What the models say of all rows of the test at once."""
    lines = (sample_folder / "test.tsv").read_text().splitlines()
    return predict_texts(run.last_models, *zip(*(line.split("\t") for line in lines), strict=True))


def words(run, test, out, *more):
    return ["predict", str(run.folder), "--test", str(test), "--out", str(out), *map(str, more)]


def refusal(capsys, *command):
    """The error of a command that leaves with status 2."""
    capsys.readouterr()
    assert main([str(word) for word in command]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("chunk_rows", [1, 7, 60, 1000])
def test_scores_do_not_depend_on_the_chunks_and_both_forms_agree(
    run, test_file, in_memory, tmp_path, chunk_rows
):
    lines, table = tmp_path / "scores.tsv", tmp_path / "scores.parquet"
    for out in (lines, table):
        assert predict_file(run, test_file, out, Manner(chunk_rows=chunk_rows)) == 60
    columns = pq.read_table(table)
    assert columns.column_names == ["row", "score", "logit_forward", "logit_backward"]
    np.testing.assert_array_equal(columns["row"], np.arange(60))
    for name, expected in in_memory.columns().items():
        np.testing.assert_allclose(columns[name], expected, rtol=0, atol=1e-6)
    assert lines.read_text() == "".join(f"{x:.9g}\n" for x in columns["score"].to_pylist())
    assert {path.name for path in tmp_path.iterdir()} == {lines.name, table.name}


def test_every_kind_of_file_gives_the_same_bytes(run, test_file, tmp_path):
    rows = [line.split("\t") for line in test_file.read_text().splitlines()]
    kinds = {name: tmp_path / f"pairs.{name}" for name in ("tsv.gz", "jsonl", "parquet")}
    kinds["tsv.gz"].write_bytes(gzip.compress(test_file.read_bytes()))
    objects = [json.dumps({"a": a.split(), "b": b}) + "\n" for a, b in rows]
    kinds["jsonl"].write_text("".join(objects))
    pq.write_table(pa.table({"a": [a for a, _ in rows], "b": [b for _, b in rows]}),
                   kinds["parquet"])  # fmt: skip
    predict_file(run, test_file, tmp_path / "expected")
    for name, path in kinds.items():
        out = tmp_path / f"scores-{name}"
        predict_file(run, path, out)
        assert out.read_bytes() == (tmp_path / "expected").read_bytes()


def test_bf16_is_near_fp32_and_not_the_same(run, test_file, in_memory, tmp_path):
    out = tmp_path / "scores.parquet"
    assert main(words(run, test_file, out, "--precision", "bf16", "--chunk-rows", 16)) == 0
    gap = np.abs(pq.read_table(out)["score"].to_numpy() - in_memory.scores)
    assert 0 < gap.max() < 0.02


@pytest.mark.parametrize("chunk_rows", [7, 1000])
def test_int8_is_the_exported_graph_wherever_the_file_is_cut(
    run, test_file, in_memory, tmp_path, chunk_rows
):
    out = tmp_path / "scores.parquet"
    assert main(words(run, test_file, out, "--precision", "int8", "--chunk-rows", chunk_rows)) == 0
    pairs = [line.split("\t") for line in test_file.read_text().splitlines()]
    exported = ServedModel.load(run.folder / "serving-int8", num_threads=1)
    alone = [exported.score([a], [b]) for a, b in pairs]
    for name in ("score", "logit_forward", "logit_backward"):
        expected = [said.columns()[name][0] for said in alone]
        np.testing.assert_allclose(pq.read_table(out)[name], expected, rtol=0, atol=1e-5)
    assert 0 < np.abs(pq.read_table(out)["score"].to_numpy() - in_memory.scores).max() < 0.1


def with_closure(run, folder):
    """A copy of a run that adds what labelled pairs say, with its predictions made anew."""
    shutil.copytree(run.folder, folder)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("closure: false", "closure: true"))
    return load_run(folder)


def test_any_file_hears_what_the_test_of_the_run_heard(run, test_file, tmp_path):
    closed = with_closure(run, tmp_path / "run")
    execute(closed, only="predict")
    assert read_json(closed.folder / "predictions" / CLOSURE)["answered_test_rows"] > 0
    expected = pq.read_table(closed.folder / "predictions" / TEST)
    out = tmp_path / "scores.parquet"
    predict_file(closed, test_file, out, Manner(chunk_rows=7))
    for name in ("score", "logit_forward"):
        found = pq.read_table(out)[name]
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-6)


def test_models_and_evidence_are_made_once(run, test_file, tmp_path, monkeypatch):
    calls = []

    def noted(module, name):
        function = getattr(module, name)
        patched = lambda *given: calls.append(name) or function(*given)  # noqa: E731
        monkeypatch.setattr(module, name, patched)

    noted(matcher, "load_model")
    noted(bulk, "evidence_of_labels")
    closed = with_closure(run, tmp_path / "run")
    predict_file(closed, test_file, tmp_path / "scores.tsv", Manner(chunk_rows=9))
    assert calls == ["load_model", "evidence_of_labels"]


def test_no_block_is_read_before_the_chunks_before_it_are_scored(
    run, test_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 256)
    num_read, num_scored = 0, 0
    read, score = bulk.read_tables, Scorer.score

    def counted_read(*arguments, **named):
        nonlocal num_read
        for table in read(*arguments, **named):
            assert num_read - num_scored < 5
            num_read += len(table)
            yield table

    def counted_score(self, a, b):
        nonlocal num_scored
        num_scored += len(a)
        return score(self, a, b)

    monkeypatch.setattr(bulk, "read_tables", counted_read)
    monkeypatch.setattr(Scorer, "score", counted_score)
    predict_file(run, test_file, tmp_path / "scores.tsv", Manner(chunk_rows=5))
    assert num_read == num_scored == 60


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_killed_prediction_resumes_to_the_same_bytes(precision, run, test_file, tmp_path):
    longer = tmp_path / "longer.tsv"
    longer.write_text(test_file.read_text() * 6)
    whole, out = tmp_path / "whole.tsv", tmp_path / "out.tsv"
    manner = ("--precision", precision, "--chunk-rows", 6)
    assert main(words(run, longer, whole, *manner)) == 0
    command = [sys.executable, "-m", "desmatch", *words(run, longer, out, *manner)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)  # fmt: skip
    work = tmp_path / f".{out.name}.making"
    deadline = time.monotonic() + 120
    while len(list(work.glob("part-*"))) < 8:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline, "no part appeared"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    kept = [*work.glob("part-*")]
    assert 8 <= len(kept) < 60
    scored = []
    score = Scorer.score
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Scorer, "score", lambda self, a, b: scored.append(len(a)) or score(self, a, b)
        )
        assert main(words(run, longer, out, *manner, "--resume")) == 0
    assert len(scored) == 60 - len(kept)
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def interrupt_after(monkeypatch, num_chunks):
    """Let the next prediction end with Ctrl-C after some chunks."""
    score, left = Scorer.score, iter(range(num_chunks))

    def interrupted(self, a, b):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return score(self, a, b)

    monkeypatch.setattr(Scorer, "score", interrupted)


def test_damaged_parts_and_leavings_of_a_killed_process_do_not_matter(
    run, test_file, tmp_path, monkeypatch
):
    out, whole = tmp_path / "out.parquet", tmp_path / "whole.parquet"
    assert main(words(run, test_file, whole, "--chunk-rows", 7)) == 0
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        assert main(words(run, test_file, out, "--chunk-rows", 7)) == 130
    assert not out.exists()
    parts = sorted((tmp_path / ".out.parquet.making").glob("part-*"))
    assert len(parts) == 5
    parts[1].write_bytes(parts[1].read_bytes()[:-9])
    parts[2].unlink()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: DEAD)
        for path in (parts[2], out):
            temporary(path).write_bytes(b"half")
    assert main(words(run, test_file, out, "--chunk-rows", 7, "--resume")) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_parts_are_kept_apart_by_input_model_precision_and_chunk(
    run, test_file, tmp_path, monkeypatch, capsys
):
    out, other = tmp_path / "out.tsv", tmp_path / "other.tsv"
    other.write_text(test_file.read_text() + "1 2\t3\n")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        assert main(words(run, test_file, out, "--chunk-rows", 7)) == 130
    closed = with_closure(run, tmp_path / "run")
    again = words(run, test_file, out, "--chunk-rows", 7)
    assert "add --resume to go on with it" in refusal(capsys, *again)
    for name, wrong in {
        "input": words(run, other, out, "--chunk-rows", 7),
        "precision": [*again, "--precision", "bf16"],
        "chunk rows": words(run, test_file, out, "--chunk-rows", 8),
        "models": words(closed, test_file, out, "--chunk-rows", 7),
    }.items():
        error = refusal(capsys, *wrong, "--resume")
        assert f"holds parts of another job (differing in {name})" in error
        assert not out.exists()
    assert main(words(run, other, out)) == 0  # without --resume they are dropped
    assert len(out.read_text().splitlines()) == 61


def test_a_malformed_late_line_is_an_error_before_any_output(
    run, test_file, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(sources, "BLOCK_BYTES", 256)
    bad, out = tmp_path / "bad.tsv", tmp_path / "out.tsv"
    bad.write_text(test_file.read_text() + "1 2\t\n3\n")
    error = refusal(capsys, *words(run, bad, out, "--chunk-rows", 6))
    assert f"{bad}:61: expected ids in column 2" in error
    assert f"{bad}:62: expected 2 or 3 columns" in error
    assert [*tmp_path.iterdir()] == [bad]


def test_a_file_that_changes_while_it_is_scored_is_refused(run, test_file, tmp_path, monkeypatch):
    changing, out = tmp_path / "changing.tsv", tmp_path / "out.tsv"
    changing.write_text(test_file.read_text())
    read = bulk.read_tables

    def late(*arguments, **named):
        changing.write_text("1\t2\n" * 3)
        yield from read(*arguments, **named)

    monkeypatch.setattr(bulk, "read_tables", late)
    with pytest.raises(UserError, match="had 60 rows when it was checked, 3 when it was scored"):
        predict_file(run, changing, out)
    assert not out.exists()


def test_scores_that_are_no_probabilities_are_refused_with_their_row(
    run, test_file, tmp_path, monkeypatch
):
    label_logits = scoring.label_logits
    monkeypatch.setattr(scoring, "label_logits",
                        lambda *given, **named: label_logits(*given, **named) * np.nan)  # fmt: skip
    with pytest.raises(UserError, match=r"x\.tsv: expected scores in \[0, 1\], got nan in row 1"):
        predict_file(run, test_file, tmp_path / "x.tsv")
    assert not (tmp_path / "x.tsv").exists()


def test_places_that_cannot_be_used_are_refused_at_once(run, test_file, tmp_path, capsys):
    own = tmp_path / "own.tsv"
    own.write_text(test_file.read_text())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for test, out, reason in (
        (test_file, tmp_path, f"{tmp_path}: is a folder"),
        (own, own, "is the file of pairs itself"),
        (pipe, tmp_path / "x", "got a pipe or device, which cannot be read twice"),
        (tmp_path / "none", tmp_path / "x", "none: no such file"),
        (tmp_path, tmp_path / "x", "expected a file, got a folder"),
    ):
        assert reason in refusal(capsys, *words(run, test, out))
    assert own.read_text() == test_file.read_text()
    assert "--precision and --chunk-rows need --test" in refusal(
        capsys, "predict", run.folder, "--precision", "bf16"
    )
    with pytest.raises(ValueError, match="chunk_rows: expected 1 or more, got 0"):
        Manner(chunk_rows=0)
    with pytest.raises(ValueError, match="precision: expected fp32, bf16 or int8, got 'fp16'"):
        dataclasses.replace(Manner(), precision="fp16")
