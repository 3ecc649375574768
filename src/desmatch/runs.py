"""A run on disk: whole-or-nothing writes, digests, seeds, and the card that signs a run."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from desmatch.disk import disk_errors
from desmatch.errors import UserError
from desmatch.seals import damage, require_format, seal
from desmatch.temporary import remove_abandoned, temporary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CARD = "card.json"
MEMBERS = "members"
"""The folder of an ensemble that its members lie in, by name."""

VALIDATION, RANDOM_ROWS, TEST = "validation.parquet", "random.parquet", "test.parquet"
"""A run's predictions of rows held out by components, of rows held out one by one, of the test."""

CLOSURE = "closure.json"
"""Beside them: for how many rows an answer follows from labelled pairs, and how good it is."""

STAGE = "stage.json"


def fold_name(fold: int) -> str:
    """Return the name of the folder of what belongs to one held-out fold."""
    return f"fold-{fold}"


@contextmanager
def atomic_write(path: Path, *, tidy: bool = True) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    A block that raises leaves `path` as it was and no temporary file behind. A process that is
    killed leaves one, which the next that writes `path` removes. Processes may write one path at
    once: the last to end wins.

    Args:
        path: To write.
        tidy: Look for what killed processes left; it lists the folder, too slow in one of many.

    Raises:
        DiskError: The disk is full, or must not be written to.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if tidy:
            remove_abandoned(path)
        partial = temporary(path)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Like `atomic_write`, for a whole folder; an older folder of that name is replaced."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        partial = temporary(path)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            yield partial
            _put_in_place(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, path: Path) -> None:
    """Replace a folder; one that another process puts there at this moment is replaced too."""
    for tries_left in (2, 1, 0):
        shutil.rmtree(path, ignore_errors=True)
        try:
            partial.replace(path)
        except OSError:
            if not tries_left:
                raise
        else:
            return


def require_new(folder: Path) -> None:
    """Refuse to write a folder that is there.

    Raises:
        UserError: It is.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already; name a new folder, or delete that one")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON whole or not at all; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - JSON is any value
    """Read a JSON file.

    Raises:
        UserError: The file is missing or is not JSON; the message names file and line.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise UserError(f"{path}:{line}: not valid JSON ({error}); make the file again") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds keys and values.

    Raises:
        UserError: As `read_json`, or it holds something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}:1: expected keys and values, got a {type(value).__name__}; "
                        "make the file again")  # fmt: skip
    return value


@dataclass(frozen=True)
class StageFolder:
    """A stage's folder, finished or in the making.

    Attributes:
        path: Where the finished stage lies.
        digest: Of everything that decides its content; another digest is another stage.
        may_resume: Whether a stage in the making is continued from.
        run: RUN; none: the folder that `path` lies in.
    """

    path: Path
    digest: str
    may_resume: bool = False
    run: Path | None = None

    @property
    def home(self) -> Path:
        """RUN."""
        return self.run or self.path.parent

    @property
    def label(self) -> str:
        """The stage's place inside RUN, such as fold-0/pretrained."""
        return self.path.relative_to(self.home).as_posix()

    @property
    def logs(self) -> Path:
        """Where those who watch the stage keep what they have seen."""
        return self.home / "logs" / self.label

    @property
    def work(self) -> Path:
        """Where the stage is made, checkpoints included."""
        return self.path.with_name(f".{self.path.name}.making")

    @property
    def is_finished(self) -> bool:
        """Whether the finished folder has this digest and is whole."""
        return _kept_in(self.path).get("digest") == self.digest and not self.damage

    @property
    def damage(self) -> str:
        """Which file of the finished folder is not what it was, or an empty text."""
        return damage_of(self.path)

    def part(self, name: str) -> StageFolder:
        """Return a folder beside this one for a part of the stage."""
        return replace(self, path=self.path.with_name(f"{self.path.name}-{name}"))

    def begin(self) -> None:
        """Make the work folder, or find one to continue from.

        Raises:
            UserError: Work of this digest is there and `may_resume` is not set, or what it is of
                cannot be read.
        """
        if damage := damage_of(self.work):
            raise UserError(f"{damage}; `rm -r {self.work}` lets the stage begin again")
        if _kept_in(self.work).get("digest") != self.digest:
            shutil.rmtree(self.work, ignore_errors=True)
        elif not self.may_resume and any(self.work.glob("checkpoint-*")):
            raise UserError(
                f"{self.work}: holds an interrupted training; "
                "add --resume to go on with it, or delete that folder to begin again"
            )
        with disk_errors(self.work):
            self.work.mkdir(parents=True, exist_ok=True)
        write_json(self.work / STAGE, {"digest": self.digest})

    @contextmanager
    def finish(self, *, beside: Sequence[Path] = ()) -> Iterator[Path]:
        """Give a temporary folder that becomes the finished one; then drop the work folder.

        Args:
            beside: Files outside of it that the stage writes too, before the block ends.
        """
        with atomic_folder(self.path) as partial:
            yield partial
            sealed = seal(partial, beside=beside, but=STAGE)
            write_json(partial / STAGE, {"digest": self.digest, **sealed})
        self.drop_work()

    def drop_work(self) -> None:
        """Remove what a process that was killed as it finished the stage has left of its work."""
        for left in self.path.parent.glob(f".{self.path.name}*.making"):
            shutil.rmtree(left, ignore_errors=True)

    def adopt(self, other: Path) -> bool:
        """Take over a folder where the same stage was finished, its files by hard links.

        Args:
            other: A stage's folder of another run, or nothing.

        Returns:
            Whether it had this digest, so that this stage is finished now.
        """
        if not replace(self, path=other).is_finished:
            return False
        with self.finish() as folder:
            shutil.copytree(other, folder, copy_function=link_file, dirs_exist_ok=True)
        return True


def link_file(source: str, target: str) -> None:
    """Link a file, or copy it where the two folders lie on different disks."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


UNREADABLE = {"files": {STAGE: "those of JSON"}}
"""What a stage's folder says whose own file cannot be read: that this file is damaged."""


def damage_of(folder: Path) -> str:
    """Return which file of a stage's folder is not what it was, or an empty text."""
    return damage(folder, _kept_in(folder))


def _kept_in(folder: Path) -> dict[str, Any]:
    """Return what a stage's folder says of itself; nothing where it is no stage's.

    Raises:
        UserError: It is of a newer version.
    """
    path = folder / STAGE
    if not path.is_file():
        return {}
    try:
        kept = read_json(path)
    except UserError:
        kept = None
    if not isinstance(kept, dict) or not isinstance(kept.get("files", {}), dict):
        return UNREADABLE
    require_format(path, kept, mend="use that version, or name another folder")
    return kept


def file_digest(path: Path) -> str:
    """Return the sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def value_digest(value: object) -> str:
    """Return the sha256 of a JSON-like value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def generator(seed: int, *path: str | int) -> np.random.Generator:
    """Return the generator of one purpose: the same seed and path give the same numbers.

    A choice that has its own path does not depend on how many numbers were drawn before it, so
    a resumed run draws what the uninterrupted one would have drawn.
    """
    words = [crc32(part.encode()) if isinstance(part, str) else part for part in path]
    return np.random.default_rng([seed, *words])


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and torch: the only place that does."""
    from transformers import set_seed

    set_seed(seed)


def revision() -> str:
    """Return the git revision this package runs from, `+changes` if the tree differs, or ''."""
    folder = Path(__file__).parent
    ask = ["git", "-C", str(folder)]
    head = subprocess.run([*ask, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode != 0:
        return ""
    status = subprocess.run(
        [*ask, "status", "--porcelain", "--untracked-files=no"],
        capture_output=True,
        text=True,
        check=False,
    )
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def processor_name() -> str:
    """Return what the processor calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of processors this process may use."""
    return len(os.sched_getaffinity(0))
