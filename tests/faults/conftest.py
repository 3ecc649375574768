from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODULES = ("process", "kill", "disk", "fuzz")


@pytest.fixture(scope="session")
def soak():
    """The parts of benchmarks/soak.py, found as it finds them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        modules = {name: importlib.import_module(f"soak_{name}") for name in MODULES}
        yield SimpleNamespace(**modules, main=importlib.import_module("soak"))


@pytest.fixture(scope="session")
def zygote(soak, tmp_path_factory):
    """A process that forks for each command."""
    with soak.process.Zygote(tmp_path_factory.mktemp("zygote")) as started:
        yield started
