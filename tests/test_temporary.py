"""Several processes that write one file, and what killed ones leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from desmatch import temporary as module
from desmatch.runs import atomic_folder, atomic_write, read_json, write_json
from desmatch.temporary import ABANDONED_SECONDS, locked, temporary

DEAD = 1 << 22  # above the highest process id of Linux

COUNT = """
import sys
from pathlib import Path
from desmatch.runs import read_json, write_json
from desmatch.temporary import locked
path = Path(sys.argv[1])
for number in range(50):
    with locked(path):
        write_json(path, {**read_json(path), f"{sys.argv[2]}-{number}": number})
"""

HOLD = """
import os, signal, sys
from pathlib import Path
from desmatch.runs import atomic_folder, atomic_write
from desmatch.temporary import locked
path = Path(sys.argv[1])
with locked(path), atomic_write(path) as file, atomic_folder(path.with_name("folder")) as folder:
    file.write_text("half")
    (folder / "part").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start(script, *words):
    return subprocess.Popen([sys.executable, "-c", script, *map(str, words)])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_processes_that_change_one_file_lose_no_change(tmp_path):
    path = tmp_path / "log.json"
    write_json(path, {})
    processes = [start(COUNT, path, name) for name in "abc"]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert len(read_json(path)) == 150
    assert names(tmp_path) == ["log.json"]


def test_what_a_killed_process_left_is_removed_and_holds_nobody_up(tmp_path):
    path = tmp_path / "log.json"
    assert start(HOLD, path).wait() == -signal.SIGKILL
    assert len(names(tmp_path)) == 3  # two temporary names and a lock
    with locked(path):
        write_json(path, {})
    with atomic_folder(tmp_path / "folder"):
        pass
    assert names(tmp_path) == ["folder", "log.json"]


def test_the_temporary_file_of_a_living_process_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", os.getppid)
        other = temporary(path)
    other.write_text("half")
    with atomic_write(path) as partial:
        assert partial != other
        partial.write_text("whole")
    assert path.read_text() == "whole"
    assert other.exists()


@pytest.mark.parametrize(("age", "stays"), [(0, True), (ABANDONED_SECONDS + 60, False)])
def test_the_temporary_file_of_another_host_is_judged_by_its_age(tmp_path, monkeypatch, age, stays):
    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: DEAD)
        patch.setattr(module, "_host", lambda: "elsewhere")
        other = temporary(path)
    other.write_text("half")
    os.utime(other, (time.time() - age,) * 2)
    with atomic_write(path) as partial:
        partial.touch()
    assert other.exists() == stays


def test_a_file_whose_name_begins_alike_is_left_alone(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: DEAD)
        other = temporary(tmp_path / "file.json")
    other.touch()
    with atomic_write(tmp_path / "file") as partial:
        partial.touch()
    assert other.exists()


def test_folders_written_at_once_are_each_whole(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    with atomic_folder(path) as first:
        (first / "first").touch()
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", os.getppid)
            with atomic_folder(path) as second:
                (second / "second").touch()
        assert names(path) == ["second"]
    assert names(path) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_another_process_puts_there_meanwhile_is_replaced(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    replace = Path.replace
    others = iter([True])

    def interfering(self, target):
        if next(others, False):
            target.mkdir()
            (target / "other").touch()
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", interfering)
    with atomic_folder(path) as partial:
        (partial / "own").touch()
    assert names(path) == ["own"]
