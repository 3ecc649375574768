from __future__ import annotations

import json
import os
import subprocess
import sys

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


def test_two_processes_share_the_batches_and_write_one_run(sample_folder, tmp_path, tiny_options):
    out = tmp_path / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "desmatch", *words(sample_folder, out, tiny_options)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("submission: ") == 1
    assert len((out / "submission" / "result.tsv").read_text().splitlines()) == 60
    history = json.loads((out / "fold-0" / "pretrained" / "history.json").read_text())
    assert history[-1]["step"] == 14  # 460 rows in batches of 16, half of them on each process
