from __future__ import annotations

import pytest

from desmatch.cli import main


@pytest.mark.parametrize("place", ["local", "processes"])
def test_sharded_weights_are_refused_before_anything_is_done(
    place, sample_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    out = tmp_path / "run"
    assert main(["run", "--data", str(sample_folder), "--out", str(out), "--on", place]) == 2
    assert "leave --use_fsdp out" in capsys.readouterr().err
    assert not out.exists()
