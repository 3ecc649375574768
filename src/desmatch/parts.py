"""An output too large for memory: its rows are made part by part, in a hidden folder beside it.

A part is written to a temporary name and renamed, so one that is there is whole; parts that a
killed process has left are used again by the next one that does the same job.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.errors import UserError
from desmatch.runs import atomic_write, read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

JOB = "job.json"
PART = "part-{:09d}.parquet"


def cut(tables: Iterable[pa.Table], num_rows: int) -> Iterator[pa.Table]:
    """Yield the rows of tables of any length in tables of `num_rows`, the last one shorter.

    A table is not asked for before the rows of those before it are used up.
    """
    waiting: list[pa.Table] = []
    held = 0
    for table in tables:
        waiting.append(table)
        held += len(table)
        if held < num_rows:
            continue
        whole = pa.concat_tables(waiting)
        yield from (whole.slice(at, num_rows) for at in range(0, held - num_rows + 1, num_rows))
        held %= num_rows
        waiting = [whole.slice(len(whole) - held)]
    if held:
        yield pa.concat_tables(waiting)


@dataclass(frozen=True)
class Parts:
    """The parts of an output in the making.

    Attributes:
        out: Where the whole output will stand.
        job: All that decides the content of every part, as JSON has it.
        num_rows: Of all parts.
        part_rows: Of each part but the last.
    """

    out: Path
    job: Mapping[str, Any]
    num_rows: int
    part_rows: int

    @property
    def work(self) -> Path:
        """Where the parts lie."""
        return self.out.with_name(f".{self.out.name}.making")

    def begin(self, *, may_resume: bool) -> None:
        """Make the folder of the parts, or find one to go on with.

        Raises:
            UserError: Parts of this job are there and `may_resume` is not set, or it is set and
                the parts are of another job.
        """
        found = read_json(self.work / JOB) if (self.work / JOB).is_file() else None
        differing = _differing(found, self.job) if isinstance(found, dict) else []
        if may_resume and differing:
            raise UserError(
                f"{self.work}: holds parts of another job (differing in {', '.join(differing)}); "
                "give the command as it was, or leave --resume out to begin again"
            )
        if found == self.job and not may_resume and any(self.work.glob("part-*")):
            raise UserError(
                f"{self.work}: holds an interrupted prediction; "
                "add --resume to go on with it, or delete that folder to begin again"
            )
        if found != self.job:
            shutil.rmtree(self.work, ignore_errors=True)
            write_json(self.work / JOB, self.job)

    def has(self, number: int) -> bool:
        """Whether a part is there, with all of its rows."""
        expected = min(self.part_rows, self.num_rows - number * self.part_rows)
        try:
            return bool(pq.read_metadata(self._path(number)).num_rows == expected)
        except (OSError, pa.ArrowException):
            return False

    def write(self, number: int, rows: pa.Table) -> None:
        """Write a part, whole or not at all."""
        with atomic_write(self._path(number), tidy=False) as partial:
            pq.write_table(rows, partial)

    def read(self) -> Iterator[pa.Table]:
        """Yield all parts in order."""
        for number in range(-(-self.num_rows // self.part_rows)):
            yield pq.read_table(self._path(number))

    def drop(self) -> None:
        """Remove the parts, once the output stands."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.work / PART.format(number)


def _differing(found: Mapping[str, Any], job: Mapping[str, Any]) -> list[str]:
    """Return the names whose values differ."""
    return sorted(name for name in {*found, *job} if found.get(name) != job.get(name))
