from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
LARGEST = 250_000
"""Bytes; pictures beside a notebook are small ones."""


def code_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.fixture
def other_run(finished_run, tmp_path):
    """A second run that holds out the same rows and scores them otherwise."""
    other = tmp_path / "other"
    shutil.copytree(finished_run, other)
    path = other / "predictions" / "validation.parquet"
    table = pq.read_table(path)
    columns = {name: np.asarray(table[name]) for name in table.column_names}
    columns["honest_score"] = np.random.default_rng(0).random(len(table))
    pq.write_table(pa.table(columns), path)
    return other


@pytest.fixture
def settings(sample_folder, finished_run, other_run, tmp_path):
    """What each notebook's first cell sets, for a few seconds instead of minutes."""
    return {
        "first_submission": {"DATA": sample_folder, "RUN": tmp_path / "run"},
        "analyse_validation": {
            "RUN": finished_run, "OTHER": other_run, "PAGE": tmp_path / "page.html",
        },
    }  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, settings, tiny_options):
    paths = [f"{name} = Path({str(value)!r})" for name, value in settings[path.stem].items()]
    first, *rest = code_of(path)
    script = "\n".join([first, *paths, f"OPTIONS = {tiny_options!r}", *rest])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not any(cell.get("outputs") for cell in cells)
    assert path.stat().st_size < LARGEST
