from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from desmatch.cli import main

OUTPUTS = ("submission/result.tsv", "submission/result.zip")


def words(sample_folder, out, options):
    data = str(sample_folder)
    return ["run", "--recipe", "demo", "--data", data, "--out", str(out), *options]


def outputs(out):
    return {name: (out / name).read_bytes() for name in OUTPUTS}


def test_the_same_command_twice_gives_the_same_submission(
    finished_run, sample_folder, tmp_path, tiny_options
):
    assert main(words(sample_folder, tmp_path / "again", tiny_options)) == 0
    assert outputs(tmp_path / "again") == outputs(finished_run)
    for page in (tmp_path / "again" / "report.html", finished_run / "report.html"):
        assert page.stat().st_size < 1_000_000


def test_another_seed_gives_another_submission(finished_run, sample_folder, tmp_path, tiny_options):
    assert main(words(sample_folder, tmp_path / "other", [*tiny_options, "--seed=1"])) == 0
    assert outputs(tmp_path / "other") != outputs(finished_run)


def histories(out):
    """The logged figures of every training of a run, stage by stage."""
    return {path.parent.relative_to(out).as_posix(): json.loads(path.read_text())
            for path in sorted(out.rglob("history.json"))}  # fmt: skip


def test_two_processes_share_every_batch_and_write_one_run(sample_folder, tmp_path, tiny_options):
    """An ensemble; its second member takes over what the first has trained, but for the last stage.

    Both members go through all kinds of training: tokens alone, tokens and labels, labels.
    """
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "model: {hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}\n"
        "mlm: {num_train_epochs: 1, batch_size: 16, num_evaluations: 2, keep: last}\n"
        "finetune: {r_drop_weight: 0.5, adversarial: {kind: fgm}}\n"
        "members: {one: {}, other: {finetune: {label_smoothing: 0.1}}}\n"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    options = [*tiny_options, "--finetune.num_train_epochs=1"]
    options += ["--recipe", str(recipe), "--machine.precision=fp32"]
    assert main(words(sample_folder, one, options)) == 0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "desmatch", *words(sample_folder, two, options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("submission: ") == 1
    expected, found = histories(one), histories(two)
    assert [*found] == [
        f"members/{member}/{stage}"
        for member in ("one", "other")
        for stage in ("fold-0/finetuned", "fold-0/pretrained", "mlm")
    ]
    for stage, lines in expected.items():
        assert [line["step"] for line in found[stage]] == [line["step"] for line in lines]
        for name in ("loss", "grad_norm", "mlm_loss"):
            assert [line[name] for line in found[stage] if name in line] == pytest.approx(
                [line[name] for line in lines if name in line], abs=1e-4
            )
    assert len((two / "submission" / "result.tsv").read_text().splitlines()) == 60
    files = [sorted(path.relative_to(out) for path in out.rglob("*")) for out in (one, two)]
    assert files[0] == files[1]
