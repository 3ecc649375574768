"""The files of a run: found, read and counted; rows without labels pass through block by block."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm

from desmatch.data.read import RejectedRow, read_pairs, stream_pairs
from desmatch.data.stored import RowsWriter
from desmatch.data.summary import Summary
from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa
    from datasets import Dataset

    from desmatch.data.faults import Labels
    from desmatch.recipe import DataConfig

ROLES = ("train", "test", "unlabeled")
SUFFIXES = (".tsv", ".tsv.gz", ".jsonl", ".parquet")


class Sources(NamedTuple):
    """The files of a run, by role."""

    train: tuple[Path, ...]
    test: Path
    unlabeled: tuple[Path, ...] = ()

    def by_role(self) -> dict[str, list[Path]]:
        """Role to files, in the order of the columns of every table."""
        return {"train": [*self.train], "test": [self.test], "unlabeled": [*self.unlabeled]}


def find_sources(folder: Path) -> Sources:
    """Find train, test and, if there is one, unlabeled in a folder of contest files.

    Raises:
        UserError: The folder, train or test is missing, or a role has two files.
    """
    if not folder.is_dir():
        raise UserError(f"--data {folder}: no such folder")
    found = {}
    for role in ROLES:
        candidates = (folder / f"{role}{suffix}" for suffix in SUFFIXES)
        found[role] = [path for path in candidates if path.is_file()]
    for role, paths in found.items():
        if len(paths) > 1:
            raise UserError(f"{folder}: both {paths[0].name} and {paths[1].name}; keep one")
        if not paths and role != "unlabeled":
            raise UserError(
                f"{folder}: no {role}.tsv (nor .tsv.gz, .jsonl, .parquet); "
                "put it there, or name files with --train and --test"
            )
    return Sources(tuple(found["train"]), found["test"][0], tuple(found["unlabeled"]))


class ReadSources(NamedTuple):
    """What the files of a run hold.

    Attributes:
        rows: Labelled rows and the test's, as `read_pairs` returns them.
        summaries: Of every role.
        rejected: Malformed rows that were left out.
    """

    rows: dict[str, Dataset]
    summaries: dict[str, Summary]
    rejected: list[RejectedRow]


def read_sources(
    sources: Sources, config: DataConfig, *, skip_bad: bool = False, keep: Path | None = None
) -> ReadSources:
    """Read the files of all roles.

    Args:
        sources: The files.
        config: Says how many ids of a pair are kept.
        skip_bad: Leave malformed rows of train and unlabeled out.
        keep: As in `count_rows`.

    Raises:
        UserError: Files cannot be read, or rows are malformed; the message has all roles' problems.
    """
    problems: list[str] = []
    read = ReadSources({}, {role: _new_summary(config) for role in ROLES}, [])
    for role in ("train", "test"):
        labels: Labels = "required" if role == "train" else "absent"
        skips = skip_bad and role != "test"
        try:
            pairs = read_pairs(sources.by_role()[role], labels=labels, skip_bad=skips)
        except UserError as error:
            problems.append(str(error))
            continue
        read.rows[role] = pairs.rows
        read.summaries[role].add(pairs.rows.data.table)
        read.rejected.extend(pairs.rejected)
    if sources.unlabeled:
        try:
            summary, rejected = count_rows(sources.unlabeled, config, skip_bad=skip_bad, keep=keep)
        except UserError as error:
            problems.append(str(error))
        else:
            read.summaries["unlabeled"] = summary
            read.rejected.extend(rejected)
    if problems:
        raise UserError("\n".join(problems))
    return read


def _new_summary(config: DataConfig) -> Summary:
    return Summary(config.max_length - 3)


def count_rows(
    paths: Sequence[Path], config: DataConfig, *, skip_bad: bool = False, keep: Path | None = None
) -> tuple[Summary, list[RejectedRow]]:
    """Read, check and count rows without labels, block by block.

    Args:
        paths: Files in the order of the rows.
        config: Says how many ids of a pair are kept.
        skip_bad: Go on without malformed rows and return them.
        keep: Folder to write the rows to; none: they are counted alone.

    Raises:
        UserError: A file cannot be read or has no good row; without `skip_bad`, one is malformed.
    """
    summary = _new_summary(config)
    with ExitStack() as stack:
        writer = stack.enter_context(RowsWriter(keep)) if keep else None
        bar = stack.enter_context(
            tqdm(desc="reading rows without labels", unit="row", delay=2, leave=False)
        )

        def take(rows: pa.Table) -> None:
            summary.add(rows)
            if writer is not None:
                writer.write(rows)
            bar.update(len(rows))

        rejected = stream_pairs(paths, take, labels="absent", skip_bad=skip_bad)
    return summary, rejected
