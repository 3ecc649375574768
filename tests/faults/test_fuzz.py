from __future__ import annotations

import json
import os

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from desmatch.cli import main

FEW = settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
FIELDS = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["1 2 3", "0", "1", "", "nan", "[MASK]"])),
    min_size=1,
    max_size=4,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def must_end_well(capsys, *words):
    """Run a command on a malformed file: it works, or there is one reason why it does not."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    assert status in (0, 2)
    assert (status == 2) == (f"desmatch {words[0]}: error: " in said.err)
    assert "Traceback" not in said.err


@FEW
@given(content=st.binary(max_size=300))
@example(content=b"\xff\xfe1\x002\x00")
@example(content=b"1\t2\t1\r3\t4\t0\r")
def test_any_bytes_as_pairs(capsys, sample_folder, tmp_path, finished_run, content):
    path = tmp_path / "any.tsv"
    path.write_bytes(content)
    must_end_well(capsys, "predict", finished_run, "--test", path, "--out", tmp_path / "out")
    must_end_well(capsys, "submit", "--check", path, "--test", sample_folder / "test.tsv")
    must_end_well(capsys, "evaluate", finished_run, "--labels", path)


@FEW
@given(rows=st.lists(FIELDS, max_size=8), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_any_rows_as_pairs(capsys, tmp_path, finished_run, rows, end):
    path = tmp_path / "rows.tsv"
    path.write_bytes(end.join(map("\t".join, rows)).encode("utf-8", "surrogatepass"))
    must_end_well(capsys, "predict", finished_run, "--test", path, "--out", tmp_path / "out")


@FEW
@given(rows=st.lists(st.fixed_dictionaries({"a": VALUES, "b": VALUES}) | VALUES, max_size=5))
def test_any_json_as_pairs(capsys, tmp_path, finished_run, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    must_end_well(capsys, "predict", finished_run, "--test", path, "--out", tmp_path / "out")


@FEW
@given(values=st.dictionaries(st.sampled_from(["seed", "data", "model", "members", "x"]), VALUES))
@example(values={"members": {"../x": {}}})
@example(values={"seed": float("inf")})
@example(values={"members": {"\U00010000": 1}})
def test_any_values_as_a_recipe(capsys, tmp_path, values):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(values))
    words = ("prepare", "--recipe", path, "--train", tmp_path / "none", "--test", tmp_path / "no")
    must_end_well(capsys, *words, "--out", tmp_path / "run")


def test_a_pipe_is_refused_at_once(capsys, tmp_path, sample_folder):
    pipe = tmp_path / "pipe.tsv"
    os.mkfifo(pipe)
    assert main(["inspect", "--train", str(pipe), "--test", str(sample_folder / "test.tsv")]) == 2
    assert f"{pipe}: expected a file, got a pipe or device" in capsys.readouterr().err
    assert main(["submit", "--check", str(pipe), "--test", str(sample_folder / "test.tsv")]) == 2
    assert f"{pipe}: expected a file, got a pipe or device" in capsys.readouterr().err
    words = ["tune", "demo", "--data", str(sample_folder), "--out", str(tmp_path / "search")]
    assert main([*words, "--space", str(pipe), "--trials", "1"]) == 2
    assert f"{pipe}: expected a file, got a pipe or device" in capsys.readouterr().err


def test_thirty_of_the_five_thousand_malformed_files(zygote, sample_folder, finished_run, tmp_path):
    pytest.importorskip("onnxscript")
    export = tmp_path / "export"
    zygote.run("export", finished_run, "--to", "onnx", "--out", export).require(0)
    places = (sample_folder, finished_run, export, tmp_path / "scratch")
    done = zygote.run(*places, 0, 30, function="soak_fuzz:try_cases", memory_bytes=3 << 30)
    told = json.loads(done.require(0).out.splitlines()[-1])
    assert told["cases"] == 30
    assert told["failed"] == []
