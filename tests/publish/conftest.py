import os

import pytest

from desmatch.cli import main

SECRET = "correct horse battery staple, and more"


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Runs `desmatch anonymize` with a fixed secret; returns the exit status."""
    monkeypatch.setenv("DESMATCH_SECRET", SECRET)

    def run(*inputs, out="out", key="key.json", options=()):
        words = ["anonymize", *inputs, "--out", tmp_path / out, "--key", tmp_path / key, *options]
        return main([os.fspath(word) for word in words])

    return run


@pytest.fixture
def write(tmp_path):
    """Writes a text file and returns its path."""

    def write_file(name, text):
        path = tmp_path / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write_file
