"""Read files of pairs into one Arrow table, naming every malformed row.

A row is `ids_a<TAB>ids_b[<TAB>label]`: no header, UTF-8, ids are any tokens without white space.
"""

from __future__ import annotations

import hashlib
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from desmatch.data.faults import Fault, Labels, RejectedRow, check_block, rejected_rows
from desmatch.data.sources import read_blocks
from desmatch.errors import SHOWN_PROBLEMS, UserError, listed
from desmatch.runs import atomic_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from datasets import Dataset

    from desmatch.data.faults import Checked
    from desmatch.data.sources import Block

__all__ = [
    "ReadPairs",
    "RejectedRow",
    "SplitIds",
    "column",
    "count_pairs",
    "read_pairs",
    "read_tables",
    "split_ids",
    "stream_pairs",
    "write_rejected",
]

ALL_ALIKE = {
    Fault.MISSING: "no row has a label, and each needs one: pass the file with ids_a<TAB>ids_b"
    "<TAB>label",
    Fault.UNWANTED: "every row has a label, and none may have one: remove column 3, or pass the "
    "file as training data",
}
"""What is wrong with a file whose rows all have this fault."""


class ReadPairs(NamedTuple):
    """All good rows of some files, and the bad ones if these were to be skipped."""

    rows: Dataset
    """Columns a and b (string: ids with one space between them), label (int8; null without
    label), file (int16, index into the paths), line (int32, from 1)."""

    rejected: list[RejectedRow]


class _FileRows(NamedTuple):
    """What was found in one file."""

    rejected: list[RejectedRow]
    """The first malformed rows up to a limit."""

    num_good: int
    """Of all rows but the malformed ones."""

    num_rejected: int
    """Of all malformed rows."""


def read_pairs(paths: Sequence[Path], *, labels: Labels, skip_bad: bool = False) -> ReadPairs:
    """Read and check text, gzip, .jsonl and .parquet files, one after the other.

    JSON lines and Parquet have columns a and b (a string or a list of ids; white space inside an
    id separates ids) and perhaps label (an integer or null); other columns are ignored.

    Args:
        paths: Files in the order of the rows.
        labels: "required": each row has a label 0 or 1; "absent": no row has one; "optional": all
            rows of a file have one or none.
        skip_bad: Go on without the malformed rows and return them as `rejected`.

    Raises:
        UserError: A file cannot be read or has no good row; without `skip_bad`, any row is
            malformed. The message lists the first problems of all files.
    """
    tables: list[pa.Table] = []
    rejected = stream_pairs(paths, tables.append, labels=labels, skip_bad=skip_bad)
    return ReadPairs(_dataset(tables), rejected)


def stream_pairs(
    paths: Sequence[Path],
    take: Callable[[pa.Table], None],
    *,
    labels: Labels,
    skip_bad: bool = False,
) -> list[RejectedRow]:
    """Read and check files as `read_pairs`, and hand the rows on block by block.

    Args:
        paths: Files in the order of the rows.
        take: Gets the columns of `ReadPairs.rows`; rows taken before an error are of no use.
        labels: As in `read_pairs`.
        skip_bad: Go on without the malformed rows and return them.

    Raises:
        UserError: As `read_pairs`.
    """
    files: list[_FileRows] = []
    problems: list[str] = []
    num_problems = 0
    for index, path in enumerate(paths):
        try:
            files.append(_read_file(path, labels, _of_file(index, take), skip_bad=skip_bad))
        except UserError as error:
            problems.append(str(error))
            num_problems += 1
        else:
            problems += [row.message for row in files[-1].rejected if not skip_bad]
            num_problems += 0 if skip_bad else files[-1].num_rejected
    if not paths:
        raise UserError("expected at least one file of pairs, got none; name one")
    _refuse(problems, num_problems)
    return [row for file in files for row in file.rejected]


def _of_file(index: int, take: Callable[[pa.Table], None]) -> Callable[[pa.Table], None]:
    """Return `take` for the rows of one file, which get its index as their column `file`."""

    def take_rows(rows: pa.Table) -> None:
        take(rows.add_column(3, "file", pa.array(np.full(len(rows), index, np.int16))))

    return take_rows


def count_pairs(path: Path, *, labels: Labels) -> int:
    """Check a file as `read_pairs` does and return its rows; one block of them is held at a time.

    Raises:
        UserError: As `read_pairs`.
    """
    file = _read_file(path, labels, lambda _: None)
    _refuse([row.message for row in file.rejected], file.num_rejected)
    return file.num_good


def read_tables(path: Path, *, labels: Labels) -> Iterator[pa.Table]:
    """Yield the checked rows of a file block by block, as they are read.

    The columns are a, b (string: ids with one space between them), label (int8 or null) and line
    (int32, from 1).

    Raises:
        UserError: The file cannot be read, or a row of the next block is malformed.
    """
    for block, checked in _checked_blocks(path, labels):
        num_rejected = int(np.count_nonzero(checked.faults))
        rejected = rejected_rows(path, block, checked.faults, SHOWN_PROBLEMS)
        _refuse([row.message for row in rejected], num_rejected)
        yield checked.rows


def column(rows: Dataset, name: str) -> Any:  # noqa: ANN401 - an Arrow chunked array
    """Return a column as it lies in Arrow, without a copy."""
    return rows.data.column(name)


def write_rejected(path: Path, rejected: Iterable[RejectedRow]) -> None:
    """Write rows as `file:line<TAB>reason<TAB>row as it was`, whole or not at all."""
    with atomic_write(path) as partial, partial.open("wb") as stream:
        for row in rejected:
            line = f"{row.path}:{row.line}\t{row.reason}\t{row.text}\n"
            stream.write(line.encode("utf-8", "surrogateescape"))


def _refuse(problems: Sequence[str], number: int) -> None:
    """Refuse the files if there are problems; those beyond each file's limit are only counted."""
    if problems:
        raise UserError(listed(chain(problems, repeat("", number - len(problems)))))


def _checked_blocks(path: Path, labels: Labels) -> Iterator[tuple[Block, Checked]]:
    """Yield each block of a file with its check; with "optional" the first good rows decide."""
    for block in read_blocks(path):
        checked = check_block(block, labels)
        if labels == "optional" and checked.rows.num_rows:
            labels = "absent" if checked.rows["label"].null_count else "required"
        yield block, checked


def _read_file(
    path: Path, labels: Labels, take: Callable[[pa.Table], None], *, skip_bad: bool = False
) -> _FileRows:
    """Read and check one file; `take` gets the columns a, b, label and line of each block.

    Raises:
        UserError: The file cannot be read, or it has no good row and one sentence says why.
    """
    rejected: list[RejectedRow] = []
    num_faults = np.zeros(len(Fault), np.int64)  # (faults,)
    for block, (rows, faults) in _checked_blocks(path, labels):
        take(rows)
        num_faults += np.bincount(faults, minlength=len(Fault))
        limit = None if skip_bad else SHOWN_PROBLEMS - len(rejected)
        rejected += rejected_rows(path, block, faults, limit)
    num_good = int(num_faults[Fault.NONE])
    if not num_good:
        _refuse_without_rows(path, num_faults, rejected if skip_bad else [])
    return _FileRows(rejected, num_good, int(num_faults.sum()) - num_good)


def _refuse_without_rows(
    path: Path, num_faults: npt.NDArray[np.int64], rejected: Sequence[RejectedRow]
) -> None:
    """Refuse a file that is empty, whose rows are all alike, or whose rows were all rejected."""
    if not num_faults.any():
        raise UserError(f"{path}: expected rows ids_a<TAB>ids_b[<TAB>label], got an empty file")
    for fault, reason in ALL_ALIKE.items():
        if num_faults[fault] == num_faults.sum():
            raise UserError(f"{path}: {reason}")
    if rejected:
        first = [row.message for row in rejected]
        raise UserError(listed([f"{path}: no good row is left; its rows:", *first]))


def _dataset(tables: Sequence[pa.Table]) -> Dataset:
    """Concatenate the rows of all blocks without a copy of the texts."""
    from datasets import Dataset  # takes a second, which other commands need not wait

    rows = pa.concat_tables(tables)
    return Dataset(rows, fingerprint=_fingerprint(rows))


def _fingerprint(rows: pa.Table) -> str:
    """Digest a table buffer by buffer; `datasets` would pickle all of it first, twice its size."""
    digest = hashlib.sha256()
    for chunk in chain.from_iterable(column.chunks for column in rows.columns):
        for buffer in filter(None, chunk.buffers()):
            digest.update(buffer)
    return digest.hexdigest()[:16]


class SplitIds(NamedTuple):
    """Texts as flat codes: text i holds `dictionary[codes[offsets[i]:offsets[i + 1]]]`."""

    dictionary: pa.Array
    """The distinct ids, strings, in the order of their first appearance."""

    codes: npt.NDArray[np.int32]
    """(N,) int32, one for each id of each text; index into `dictionary`."""

    offsets: npt.NDArray[np.int64]
    """(rows + 1,) int64."""


def split_ids(texts: pa.ChunkedArray | pa.Array) -> SplitIds:
    """Split texts at single spaces into dictionary codes, without a Python loop over rows.

    Args:
        texts: (rows,) strings, ids with one space between them; an empty text has no ids.
    """
    chunked = texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([texts])
    lists = pc.split_pattern(chunked, " ")
    is_empty = np.asarray(pc.equal(pc.binary_length(chunked), 0))
    lengths = np.where(is_empty, 0, np.asarray(pc.list_value_length(lists), dtype=np.int64))
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    if is_empty.any():  # splitting "" gives one empty id
        lists = lists.filter(pa.array(~is_empty))
    ids = pc.list_flatten(lists).dictionary_encode().unify_dictionaries()
    if ids.num_chunks == 0:
        return SplitIds(pa.array([], pa.string()), np.empty(0, np.int32), offsets)
    codes = [np.asarray(chunk.indices, dtype=np.int32) for chunk in ids.chunks]
    return SplitIds(ids.chunk(0).dictionary, np.concatenate(codes), offsets)
