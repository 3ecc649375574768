from __future__ import annotations

import os
import shutil
import subprocess

import pytest


@pytest.fixture
def disk(soak, tmp_path):
    """Where a disk in memory can be mounted."""
    is_required = os.environ.get("DESMATCH_REQUIRE_DISK") == "1"
    if os.geteuid() != 0 and not is_required:
        pytest.skip("only root may mount a disk")
    folder = tmp_path / "disk"
    try:
        with soak.disk.small_disk(folder, "1m"):
            pass
    except (OSError, subprocess.CalledProcessError) as error:
        if is_required:
            raise
        pytest.skip(f"no disk can be mounted here: {error}")
    return folder


def test_a_full_disk_loses_nothing_and_the_line_goes_on(
    soak, zygote, disk, finished_run, sample_folder, tiny_options
):
    words = soak.kill.run_words(sample_folder, disk / "run", tiny_options)
    said = soak.disk.fill_and_mend(zygote, words, disk, finished_run, 700_000)
    assert said.endswith("full")


def test_a_read_only_disk_is_one_clear_error(
    soak, zygote, disk, finished_run, sample_folder, tiny_options
):
    with soak.disk.small_disk(disk, "64m"):
        run = disk / "run"
        shutil.copytree(finished_run, run)
        soak.disk.remount(disk, "ro")
        commands = soak.disk.readers(run, sample_folder, disk)
        for name in ("predict", "report", "export", "finetune"):
            said = zygote.run(*commands[name]).require(2)
            assert "Read-only file system; make that folder one you may write to" in said.err, name
        said = zygote.run(*soak.kill.run_words(sample_folder, disk / "new", tiny_options))
        assert f"{disk / 'new'}" in said.require(2).err


def test_where_no_file_may_be_long_a_checkpoint_is_named(
    soak, zygote, sample_folder, tmp_path, tiny_options
):
    out = tmp_path / "run"
    words = soak.kill.run_words(sample_folder, out, tiny_options)
    said = zygote.run(*words, file_bytes=50_000).require(2)
    assert f"{out}/fold-0/.pretrained.making/checkpoint-14: cannot be written: " in said.err
    assert (
        f"free space on that disk; then `desmatch {' '.join(words)} --resume` goes on" in said.err
    )


@pytest.mark.parametrize("suffix", ["tsv", "parquet"])
def test_scores_that_find_no_room_leave_no_half_of_a_file(
    soak, zygote, finished_run, sample_folder, tmp_path, suffix
):
    out = tmp_path / f"scores.{suffix}"
    words = ["predict", finished_run, "--test", sample_folder / "test.tsv", "--out", out]
    said = zygote.run(*words, file_bytes=1500).require(2)
    assert not out.exists()
    soak.disk.follow(zygote, soak.disk.MEND.findall(said.err)[0])
    assert out.is_file()
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_file_in_place_of_a_folder_is_named(zygote, sample_folder, tmp_path):
    (tmp_path / "run").write_text("no folder")
    said = zygote.run("run", "--data", sample_folder, "--out", tmp_path / "run").require(2)
    assert f"{tmp_path}/run" in said.err
