"""Read pairs of plain texts: TSV, CSV, JSON lines or Parquet, row by row.

Not one error here shows what it found: a value, a column's name or a library's own words might be
what its owner will not publish. Place, what was expected and the mend have to do.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from desmatch.data.sources import BLOCK_ROWS, GZIP_SUFFIX, read_text
from desmatch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DEFAULT_NAMES = ("a", "b", "label")
LABELS: dict[object, str] = {"0": "0", "1": "1", 0: "0", 1: "1"}
"""What a label may be; 1.0 and true are 1."""

TEXT_NEEDED = "expected two texts, got a value that is none; write both as text"
LABEL_NEEDED = (
    "expected label 0 or 1 as in the rows before, got {came}; mend it, or name the two columns of "
    "the texts alone with --columns"
)


class PlainPair(NamedTuple):
    """Two plain texts and their label."""

    line: int
    """Where the row begins in its file, from 1."""
    a: str
    b: str
    label: str | None
    """"0", "1", or none where the file has no labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Where a row keeps its texts and its label."""

    names: tuple[str, ...] = ()
    """Of a, b and perhaps the label; numbers from 1 without a header. None: a, b, label; the
    first columns of TSV, which then has no header."""
    has_header: bool = True
    """Whether line 1 of CSV, and of TSV with names, holds the names."""

    def __post_init__(self) -> None:
        if self.names and len(self.names) not in (2, 3):
            raise UserError(f"--columns: expected two or three names, got {len(self.names)}")
        if not self.has_header and not all(
            name.isdecimal() and int(name) > 0 for name in self.names
        ):
            raise UserError("--columns: without a header columns are numbers from 1, as in 1,2,3")


class _Row(NamedTuple):
    line: int
    values: Sequence[Any]
    """a, b and perhaps the label, as the file has them."""


def read_plain(path: Path, columns: Columns) -> Iterator[PlainPair]:
    """Yield the pairs of a file: .csv, .jsonl and .parquet by their names, all else is TSV.

    The first row decides whether the file has labels.

    Raises:
        UserError: The file cannot be read, or the next row is no pair.
    """
    is_labelled: bool | None = None
    for line, values in _rows(path, columns):
        a, b, *rest = values
        if not (isinstance(a, str) and isinstance(b, str)):
            raise UserError(f"{path}:{line}: {TEXT_NEEDED}")
        label = _label(path, line, rest[0]) if rest else None
        if is_labelled is None:
            is_labelled = label is not None
        if is_labelled != (label is not None):
            came = "none" if is_labelled else "one where those had none"
            raise UserError(f"{path}:{line}: {LABEL_NEEDED.format(came=came)}")
        yield PlainPair(line, a, b, label)
    if is_labelled is None:
        raise UserError(f"{path}: expected pairs of texts, got no row")


def _rows(path: Path, columns: Columns) -> Iterator[_Row]:
    match Path(path.name.lower().removesuffix(GZIP_SUFFIX)).suffix:
        case ".parquet":
            return _parquet_rows(path, columns.names)
        case ".jsonl":
            return _json_rows(path, columns.names)
        case ".csv":
            return _delimited_rows(path, _csv_fields(path), columns, columns.has_header)
        case _:
            fields = ((line, text.split("\t")) for line, text in _lines(path))
            has_header = columns.has_header and bool(columns.names)
            return _delimited_rows(path, fields, columns, has_header)


def _label(path: Path, line: int, value: object) -> str | None:
    """Return a label's text, or none where there is no label."""
    if value is None or value == "":
        return None
    label = LABELS.get(value) if isinstance(value, str | int | float) else None
    if label is None:
        raise UserError(
            f"{path}:{line}: expected label 0 or 1, got something else; mend the label, or say "
            "with --columns which columns are the texts and the label"
        )
    return label


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and the text of every line."""
    for block in read_text(path):
        for line, content in enumerate(block.content.split(b"\n")[:-1], block.first_line):
            try:
                yield line, content.decode()
            except UnicodeDecodeError:
                raise UserError(
                    f"{path}:{line}: expected UTF-8, got other bytes; save the file as UTF-8"
                ) from None


# TSV and CSV


def _csv_fields(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the fields of every CSV record with the line it begins on; quotes as in RFC 4180."""
    reader = csv.reader((f"{text}\n" for _, text in _lines(path)), strict=True)
    line = 1
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise UserError(
                f"{path}:{line}: not valid CSV, or a text of more than {csv.field_size_limit()} "
                "characters; put a text with a comma, a quote or a line break in quotes, and write "
                'a quote inside as ""'
            ) from None
        yield line, fields
        line = reader.line_num + 1


def _delimited_rows(
    path: Path, fields: Iterator[tuple[int, list[str]]], columns: Columns, has_header: bool
) -> Iterator[_Row]:
    """Pick the columns of every row."""
    places: tuple[int, ...] = tuple(int(name) - 1 for name in columns.names if not has_header)
    width = 0
    for line, row in fields:
        if has_header and not width:
            width = len(row)
            places = _places(f"{path}:{line}", row, columns.names)
            continue
        width = width or len(row)
        if len(row) != width or (not places and len(row) not in (2, 3)):
            expected = width if places or width in (2, 3) else "2 or 3"
            raise UserError(
                f"{path}:{line}: expected {expected} columns, got {len(row)}; mend the row, or say "
                "with --columns which columns are the texts and the label"
            )
        if places and max(places) >= len(row):
            raise UserError(
                f"{path}:{line}: got {len(row)} columns, and --columns asks for number "
                f"{max(places) + 1}; name columns that are there"
            )
        yield _Row(line, [row[place] for place in places] if places else row)


def _places(where: str, header: Sequence[str], names: Sequence[str]) -> tuple[int, ...]:
    """Return the places of the texts' columns, and of the label's if there is one.

    Raises:
        UserError: A text's column is missing, or a name stands for several columns.
    """
    wanted = names or DEFAULT_NAMES
    found = [name for place, name in enumerate(wanted) if place < 2 or name in header]
    for name in found:
        if header.count(name) != 1:
            raise UserError(
                f"{where}: expected one column {name!r}, got {header.count(name)} of "
                f"{len(header)}; name the columns with --columns A,B,LABEL"
            )
    return tuple(header.index(name) for name in found)


# JSON lines and Parquet


def _json_rows(path: Path, names: Sequence[str]) -> Iterator[_Row]:
    """Yield the values of every JSON object."""
    wanted = names or DEFAULT_NAMES
    for line, text in _lines(path):
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            raise UserError(
                f"{path}:{line}: not valid JSON; write one object on each line"
            ) from None
        if not isinstance(row, dict) or not set(wanted[:2]) <= row.keys():
            raise UserError(
                f"{path}:{line}: expected an object with the keys {wanted[0]!r} and "
                f"{wanted[1]!r}; write both, or name the keys with --columns A,B,LABEL"
            )
        values = [row.get(name) for name in wanted]
        if not all(_is_unicode(value) for value in values):
            raise UserError(f"{path}:{line}: half of a surrogate pair; write the text as UTF-8")
        yield _Row(line, values)


def _is_unicode(value: object) -> bool:
    """Say whether a value is no text, or one that UTF-8 can write."""
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _parquet_rows(path: Path, names: Sequence[str]) -> Iterator[_Row]:
    """Yield the values of every row of a Parquet file."""
    line = 1
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            chosen = [schema.names[place] for place in _places(str(path), schema.names, names)]
            for batch in file.iter_batches(BLOCK_ROWS, columns=chosen):
                for values in zip(*(batch[name].to_pylist() for name in chosen), strict=True):
                    yield _Row(line, values)
                    line += 1
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except (pa.ArrowException, UnicodeDecodeError, OSError):
        raise UserError(f"{path}: not a readable Parquet file; write it again") from None
