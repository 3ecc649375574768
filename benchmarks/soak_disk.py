"""Full and locked disks, files cut short, and whether the line that an error prints mends it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from soak_kill import contents, differences, run_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from soak_process import Outcome, Zygote

MEND = re.compile(r"`(desmatch [^`]+|rm [^`]+)`")
MOST_MENDS = 6
"""Lines that may have to be followed until a command works: one fault may hide another."""


def follow(zygote: Zygote, line: str) -> None:
    """Do what a line between backquotes says.

    Raises:
        AssertionError: It does not end well.
    """
    words = shlex.split(line)
    if words[0] == "rm":
        for path in map(Path, words[1:]):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.is_file():
                path.unlink()
    else:
        work_until_done(zygote, words[1:])


def work_until_done(zygote: Zygote, words: Sequence[object], depth: int = 0) -> list[Outcome]:
    """Give a command, and while it is refused do what it says first; return what it said.

    Raises:
        AssertionError: A refusal has no line that mends it, or the lines do not help.
    """
    said = []
    for _ in range(MOST_MENDS):
        said.append(zygote.run(*words).require(0, 2))
        if said[-1].status == 0:
            return said
        lines = MEND.findall(said[-1].err)
        assert lines, f"no line that mends it: {said[-1].err}"
        assert depth < MOST_MENDS, f"these lines lead nowhere: {said[-1].err}"
        line = lines[0]
        if shlex.split(line)[1:] == [str(word) for word in words]:
            continue
        if line.startswith("rm "):
            follow(zygote, line)
        else:
            work_until_done(zygote, shlex.split(line)[1:], depth + 1)
    raise AssertionError(f"still refused: {said[-1].err}")


def cut_short(path: Path, share: float) -> None:
    """Leave the first bytes of a file, and its links elsewhere as they are."""
    content = path.read_bytes()
    path.unlink()
    if share >= 0:
        path.write_bytes(content[: int(share * len(content))])


def linked_copy(run: Path, out: Path) -> Path:
    """Copy a run by hard links: what is written anew is written beside."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(run, out, copy_function=os.link)
    return out


def readers(run: Path, data: Path, scratch: Path) -> dict[str, list[str]]:
    """Return commands that read a run, by name."""
    commands: dict[str, list[object]] = {
        "predict": ["predict", run, "--test", data / "test.tsv", "--out", scratch / "scores.tsv"],
        "evaluate": ["evaluate", run],
        "labels": ["evaluate", run, "--labels", data / "test_labels.tsv"],
        "submit": ["submit", run],
        "report": ["report", run],
        "export": ["export", run, "--out", scratch / f"exported-{os.urandom(4).hex()}"],
        "diagnose": ["diagnose", run, "--batches", 1],
        "finetune": ["finetune", run],
        "runs": ["runs", run.parent],
    }
    return {name: [str(word) for word in words] for name, words in commands.items()}


@dataclass(frozen=True)
class Bench:
    """What episodes work on.

    Attributes:
        data: Folder of the files of a run.
        run: Finished; not to be changed.
        options: Of its command.
        scratch: A folder of their own.
    """

    data: Path
    run: Path
    options: Sequence[str]
    scratch: Path


def damage_and_mend(zygote: Zygote, bench: Bench, rng: np.random.Generator) -> str:
    """Cut a file of a run, give a command that reads the run, and follow the lines it prints.

    Then `desmatch run` must end in what was there. Returns what was done.

    Raises:
        AssertionError: A line is missing or does not help, or something was lost.
    """
    whole = linked_copy(bench.run, bench.scratch / "runs" / "run")
    files = sorted(path for path in whole.rglob("*") if path.is_file())
    path = files[int(rng.integers(len(files)))]
    share = float(rng.choice([-1.0, 0.0, rng.random()]))
    cut_short(path, share)
    commands = readers(whole, bench.data, bench.scratch)
    name = str(rng.choice(list(commands)))
    what = f"{path.relative_to(whole)} cut to {share:.2f}, {name}"
    try:
        work_until_done(zygote, commands[name])
        work_until_done(zygote, [*run_words(bench.data, whole, bench.options), "--resume"])
        lost = differences(whole, bench.run)
    except AssertionError as error:
        raise AssertionError(f"{what}: {error}") from error
    assert not lost, f"{what}: {lost}"
    return what


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a disk in memory, as root.

    Raises:
        OSError: It cannot be mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """Change a mounted disk, such as its size, or `ro`."""
    _mount("-o", f"remount,{option}", str(folder))


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(done.stderr.strip())


def fill_and_mend(
    zygote: Zygote, words: Sequence[str], disk: Path, expected: Path, size: int
) -> str:
    """Run on a disk of `size` bytes until it is full, make room, and follow the line it prints.

    Args:
        zygote: To run in.
        words: Of a run whose folder is disk/run.
        disk: Where to mount it.
        expected: The run as it is where there is room.
        size: Of the disk.

    Raises:
        AssertionError: The disk was full and the error does not say so, or what it prints does not
            lead to the run that is expected.
    """
    with small_disk(disk, str(size)):
        said = zygote.run(*words).require(0, 2)
        if said.status == 2:
            _require_told(said, "No space left on device", disk)
            remount(disk, "size=64m")
            follow(zygote, MEND.findall(said.err)[0])
        _require_whole(disk / "run", expected)
    return f"{size} bytes: {'full' if said.status else 'enough'}"


def limit_and_mend(
    zygote: Zygote, words: Sequence[str], run: Path, expected: Path, limit: int
) -> str:
    """Run where no file may be longer than `limit` bytes, then follow the line it prints.

    Raises:
        AssertionError: As `fill_and_mend`.
    """
    said = zygote.run(*words, file_bytes=limit).require(0, 2)
    if said.status == 2:
        _require_told(said, "", run)
        follow(zygote, MEND.findall(said.err)[0])
    _require_whole(run, expected)
    return f"{limit} bytes a file: {'refused' if said.status else 'enough'}"


def _require_told(said: Outcome, reason: str, place: Path) -> None:
    assert reason in said.err, said.err
    assert str(place) in said.err, said.err
    assert MEND.findall(said.err), said.err


def _require_whole(run: Path, expected: Path) -> None:
    lost = differences(run, expected)
    assert not lost, lost
    hidden = [str(path) for path in run.rglob(".*")]
    assert not hidden, hidden


def lock_and_unlock(zygote: Zygote, bench: Bench, rng: np.random.Generator) -> str:
    """Give a command that writes into a run on a disk that is read-only, and again when it is not.

    Raises:
        AssertionError: The first is no clear error, or the second does not work.
    """
    disk = bench.scratch / "disk"
    with small_disk(disk, "64m"):
        run = disk / "runs" / "run"
        shutil.copytree(bench.run, run)
        commands = readers(run, bench.data, disk) | {
            "run": run_words(bench.data, disk / "new", bench.options),
            "prepare": ["prepare", "--data", str(bench.data), "--out", str(disk / "new")],
            "check": ["submit", "--check", str(run / "submission" / "result.tsv"), "--test",
                      str(bench.data / "test.tsv")],
        }  # fmt: skip
        name = str(rng.choice(list(commands)))
        remount(disk, "ro")
        said = zygote.run(*commands[name]).require(0, 2)
        if said.status == 2:
            assert "Read-only file system" in said.err, said.err
            assert str(disk) in said.err, said.err
        remount(disk, "rw")
        zygote.run(*commands[name]).require(0)
        lost = differences(run, bench.run)
        assert not lost, lost
    return f"{name}: {'refused' if said.status else 'writes nothing'}"


def newer_version(zygote: Zygote, bench: Bench, export: Path, rng: np.random.Generator) -> str:
    """Raise the format of a part of a run or of an export; whoever reads it must leave it alone.

    Raises:
        AssertionError: It is read, or changed, or the error does not name it.
    """
    run = linked_copy(bench.run, bench.scratch / "runs" / "run")
    served = linked_copy(export, bench.scratch / "export")
    places = [*run.rglob("stage.json"), run / "sources.json", served / "serving.json"]
    path = sorted(places)[int(rng.integers(len(places)))]
    kept = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps({**kept, "format": kept["format"] + 1}))
    before = contents(run)
    words = [*run_words(bench.data, run, bench.options), "--resume"]
    if path.name == "serving.json":
        words = ["serve", str(served), "--port", "1", "--host", "192.0.2.1"]
    elif rng.random() < 0.7:
        commands = readers(run, bench.data, bench.scratch)
        words = commands[str(rng.choice([name for name in commands if name != "runs"]))]
    said = zygote.run(*words).require(0, 2)
    if said.status == 2:
        assert f"{path}: format 2" in said.err, said.err
    else:
        assert words[0] in ("report", "submit", "evaluate", "finetune", "predict"), said
    assert contents(run) == before, words
    return f"{path.relative_to(bench.scratch)}, {words[0]}: {said.status}"
