from __future__ import annotations

import json

import pytest

from desmatch.cli import main
from desmatch.errors import UserError
from desmatch.serve.session import ServedModel


@pytest.fixture
def run(soak, finished_run, tmp_path):
    """A copy of a finished run, which may be spoilt."""
    return soak.disk.linked_copy(finished_run, tmp_path / "runs" / "run")


def refusal(capsys, words):
    """The error of a command that leaves with status 2."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "verb", "mend"),
    [
        ("fold-0/finetuned/model.safetensors", "predict", "desmatch finetune {run}"),
        ("fold-0/finetuned/vocabulary.json", "export", "desmatch finetune {run}"),
        ("fold-0/pretrained/model.safetensors", "diagnose", "desmatch pretrain {run}"),
        ("prepared/train/data-00000-of-00001.arrow", "labels", "desmatch prepare --recipe"),
        ("predictions/validation.parquet", "report", "desmatch predict {run}"),
        ("predictions/stage.json", "report", "desmatch predict {run}"),
        ("card.json", "runs", "desmatch submit {run}"),
        ("card.json", "evaluate", "desmatch submit {run}"),
        ("recipe.yaml", "predict", "desmatch run --recipe demo "),
        ("sources.json", "labels", "desmatch run --recipe demo "),
        ("stages.json", "submit", "rm {run}/stages.json"),
    ],
)  # fmt: skip
def test_a_file_cut_short_is_named_with_the_line_that_mends_it(
    soak, capsys, run, sample_folder, tmp_path, name, verb, mend
):
    soak.disk.cut_short(run / name, 0.5)
    if verb == "submit":
        soak.disk.cut_short(run / "card.json", -1)
    said = refusal(capsys, soak.disk.readers(run, sample_folder, tmp_path)[verb])
    assert f"{run / name}: damaged, " in said or "not valid JSON" in said
    assert f"`{mend.format(run=run)}" in said


def test_a_damaged_run_without_its_recipe_is_to_be_copied_again(soak, capsys, run):
    (run / "recipe.yaml").unlink()
    soak.disk.cut_short(run / "predictions" / "validation.parquet", 0.5)
    assert "copy the run again, with its recipe.yaml" in refusal(capsys, ["report", run])


DAMAGED = (
    "prepared/vocabulary.json",
    "fold-0/finetuned/model.safetensors",
    "predictions/test.parquet",
    "card.json",
    "fold-0/pretrained/stage.json",
)


def test_the_printed_lines_mend_a_run_and_lose_nothing(
    soak, zygote, run, finished_run, sample_folder, tmp_path, tiny_options
):
    for name in DAMAGED:
        soak.disk.cut_short(run / name, 0.7)
    scores = tmp_path / "scores.tsv"
    soak.disk.work_until_done(zygote, soak.disk.readers(run, sample_folder, tmp_path)["predict"])
    assert scores.read_bytes() == (finished_run / "submission" / "result.tsv").read_bytes()
    words = soak.kill.run_words(sample_folder, run, tiny_options)
    zygote.run(*words).require(0)
    assert soak.kill.differences(run, finished_run) == []


def test_a_damaged_checkpoint_names_the_line_that_goes_on_from_the_one_before(
    soak, zygote, finished_run, sample_folder, tmp_path, tiny_options
):
    out = tmp_path / "run"
    words = soak.kill.run_words(sample_folder, out, tiny_options)
    killed = zygote.run(*words, under=str(out), kill_before="open .*finetuned.making/checkpoint-27")
    assert killed.status == -9
    checkpoint = out / "fold-0" / ".finetuned.making" / "checkpoint-18"
    (checkpoint / "optimizer.pt").write_bytes(b"cut")
    said = zygote.run(*words, "--resume").require(2)
    assert f"{checkpoint}/optimizer.pt: damaged, 3 bytes instead of " in said.err
    assert f"`rm -r {checkpoint}`" in said.err
    soak.disk.follow(zygote, soak.disk.MEND.findall(said.err)[0])
    (out / "fold-0" / ".finetuned.making" / "checkpoint-9" / "seal.json").write_text("{")
    said = zygote.run(*words, "--resume").require(2)
    assert "checkpoint-9/seal.json: cannot be read" in said.err
    soak.disk.follow(zygote, soak.disk.MEND.findall(said.err)[0])
    zygote.run(*words, "--resume").require(0)
    assert soak.kill.differences(out, finished_run) == []


@pytest.mark.parametrize("name", ["sources.json", "prepared/stage.json", "predictions/stage.json"])
def test_what_a_newer_version_wrote_is_left_alone(soak, capsys, run, sample_folder, tmp_path, name):
    kept = json.loads((run / name).read_text())
    soak.disk.cut_short(run / name, -1)
    (run / name).write_text(json.dumps({**kept, "format": 2}))
    before = soak.kill.contents(run)
    for words in (
        soak.disk.readers(run, sample_folder, tmp_path)["predict"],
        ["submit", run],
        ["report", run],
    ):
        said = refusal(capsys, words)
        assert f"{run / name}: format 2 is another version's, this one reads up to 1; use" in said
    assert soak.kill.contents(run) == before


def test_an_export_that_is_damaged_or_newer_says_how_to_make_it_again(finished_run, tmp_path):
    pytest.importorskip("onnxscript")
    out = tmp_path / "export"
    assert main(["export", str(finished_run), "--to", "onnx", "--out", str(out)]) == 0
    manifest = json.loads((out / "serving.json").read_text())
    (out / "serving.json").write_text(json.dumps({**manifest, "format": 9}))
    with pytest.raises(UserError, match=r"serving.json: format 9 .* `rm -r .*` and export"):
        ServedModel.load(out)
    (out / "serving.json").write_text(json.dumps(manifest))
    graph = next(out.rglob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"onnx: damaged, 1000 bytes instead of"):
        ServedModel.load(out)
