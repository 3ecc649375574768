from __future__ import annotations

MOMENTS = {
    "data half written": "mkdir .*prepared.*partial/test",
    "before the first checkpoint": "open .*pretrained.making/checkpoint-14",
    "a checkpoint without its end": "pretrained.making/checkpoint-28/.*seal.json",
    "a model half written": "open .*pretrained.*partial/.*vocabulary",
    "half of the checkpoints deleted": "os.rmdir checkpoint-14",
    "a checkpoint whose older brother is being deleted": "os.remove optimizer.pt",
    "another one without its end": "finetuned.making/checkpoint-18/.*seal.json",
    "predictions half written": "fold-0/.*test.parquet",
    "a submission without its card": "/.card.json",
    "a log half written": "open .*/.stages.json",
}
"""What a run has come to when it is killed, each time at its next start."""


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    soak, zygote, finished_run, sample_folder, tmp_path, tiny_options
):
    out = tmp_path / "killed"
    words = soak.kill.run_words(sample_folder, out, tiny_options)
    resume = []
    for what, moment in MOMENTS.items():
        killed = zygote.run(*words, *resume, under=str(out), kill_before=moment)
        assert killed.status == -9, f"{what}: {killed}"
        resume = ["--resume"]
    ended = zygote.run(*words, *resume).require(0)
    assert "still holds, skipped" in ended.out
    assert soak.kill.differences(out, finished_run) == []
    assert not list(out.rglob(".*"))
