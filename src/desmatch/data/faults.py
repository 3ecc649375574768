"""Find every malformed row of a block of lines, and say what is wrong with it.

The good rows pass through NumPy and Arrow only; Python touches a row when it is bad.

Letters of the shapes: lines, fields (what lies between tabs and newlines), rows (good lines).
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from desmatch.data.sources import Block

Bools = npt.NDArray[np.bool_]

Labels = Literal["required", "absent", "optional"]
"""Whether each row needs a label, must have none, or all rows of a file are alike."""

TAB, NEWLINE, NUL, SPACE, ZERO = b"\t\n\0 0"

WHITE_SPACE = r"[\p{Z}\t-\r\x1c-\x1f\x85]+"
"""What `str.split` splits at, as a pattern of Arrow."""

HEADER_NAME = re.compile(r"[^\W\d]\w*")
NUMBERS = re.compile(rb"[0-9 \t]+")
HEADER_LINES = 100
"""How many lines after the first are compared with it to recognise a header."""

SHOWN_CHARACTERS = 40


class Fault(IntEnum):
    """What can be wrong with a row; the first that applies names it."""

    NONE = 0
    KNOWN = 1
    NUL = 2
    UTF8 = 3
    COLUMNS = 4
    EMPTY_A = 5
    EMPTY_B = 6
    HEADER = 7
    UNWANTED = 8
    LABEL = 9
    MISSING = 10


REASONS = {
    Fault.NUL: "expected text, got a NUL byte; remove it or write the file again",
    Fault.UTF8: "expected UTF-8, got other bytes; save the file as UTF-8",
    Fault.COLUMNS: "expected 2 or 3 columns, got {columns}; write ids_a<TAB>ids_b[<TAB>label]",
    Fault.EMPTY_A: "expected ids in column 1, got none; write at least one id or remove the row",
    Fault.EMPTY_B: "expected ids in column 2, got none; write at least one id or remove the row",
    Fault.HEADER: "expected a row of ids, got what looks like a header ({row}); remove this line",
    Fault.UNWANTED: "expected 2 columns without label, got label {label}; remove column 3",
    Fault.LABEL: "expected label 0 or 1, got {label}; mend the label or remove the row",
    Fault.MISSING: "expected label 0 or 1 in column 3, got no label; add it or remove the row",
}
"""The reason of each fault but `KNOWN`, whose reason comes with the block."""


class RejectedRow(NamedTuple):
    """A malformed row."""

    path: Path
    line: int
    """From 1."""

    text: str
    """The row as the file has it; bytes that are not UTF-8 as surrogate escapes."""

    reason: str
    """What was expected, what came; the mend."""

    @property
    def message(self) -> str:
        """`path:line: reason`."""
        return f"{self.path}:{self.line}: {self.reason}"


class Checked(NamedTuple):
    """A block after its check."""

    rows: pa.Table
    """Columns a, b (string, ids with one space between them), label (int8, null), line (int32)."""

    faults: npt.NDArray[np.int8]
    """(lines,) `Fault`."""


class Fields(NamedTuple):
    """The fields of a block, counted through all its lines."""

    texts: pa.Array
    """(fields,) strings; not checked to be UTF-8."""

    first: npt.NDArray[np.intp]
    """(lines,) index of the first field of each line."""

    columns: npt.NDArray[np.intp]
    """(lines,) number of fields of each line."""

    labels: npt.NDArray[np.int8]
    """(lines,) 0 or 1; `NO_LABEL` without third column, `BAD_LABEL` if it is something else."""


NO_LABEL = -1
BAD_LABEL = -2


def check_block(block: Block, labels: Labels) -> Checked:
    """Check and parse the lines of a block.

    Args:
        block: At least one line.
        labels: With "optional", the majority of the rows of this block decides.
    """
    fields = _split_fields(block.content)
    faults = np.select(
        [_at(len(fields.first), list(block.known)), *_broken_lines(block.content, fields)],
        [Fault.KNOWN, Fault.NUL, Fault.UTF8, Fault.COLUMNS],
        Fault.NONE,
    ).astype(np.int8)
    whole = np.flatnonzero(faults == Fault.NONE)  # (whole lines,)
    a, b = (fields.texts.take(pa.array(fields.first[whole] + side)) for side in (0, 1))
    if not _is_tidy(block.content):
        a, b = _tidied(a), _tidied(b)
    faults[whole[_is_empty(b)]] = Fault.EMPTY_B
    faults[whole[_is_empty(a)]] = Fault.EMPTY_A
    _check_labels(faults, fields.labels, labels, block)
    rows = np.flatnonzero(faults == Fault.NONE)
    kept = pa.array(faults[whole] == Fault.NONE)
    label = fields.labels[rows]
    table = {
        "a": a.filter(kept),
        "b": b.filter(kept),
        "label": pa.array(label, pa.int8(), mask=label == NO_LABEL),
        "line": pa.array(rows + block.first_line, pa.int32()),
    }
    return Checked(pa.table(table), faults)


def _split_fields(content: bytes) -> Fields:
    """Split lines at tabs; the texts share one buffer, from which the separators are cut out."""
    data = np.frombuffer(content, np.uint8)
    is_separator = (data == TAB) | (data == NEWLINE)
    separators = np.flatnonzero(is_separator)  # (fields,)
    kept = data[~is_separator]
    offsets = np.zeros(len(separators) + 1, np.int32)
    offsets[1:] = separators - np.arange(len(separators))
    texts = pa.StringArray.from_buffers(len(separators), pa.py_buffer(offsets), pa.py_buffer(kept))
    last = np.flatnonzero(data[separators] == NEWLINE)  # (lines,)
    first = np.concatenate([[0], last[:-1] + 1])
    third = np.minimum(first + 2, last)
    digit = data[separators[third] - 1] - np.uint8(ZERO)  # wraps around below "0"
    is_digit = (np.diff(offsets)[third] == 1) & (digit <= 1)
    has_label = last - first == 2
    given = np.where(is_digit, digit.astype(np.int8), BAD_LABEL)
    label = np.where(has_label, given, NO_LABEL).astype(np.int8)
    return Fields(texts, first, last - first + 1, label)


def _broken_lines(content: bytes, fields: Fields) -> tuple[Bools, Bools, Bools]:
    """Return the lines with NUL, with bytes that are not UTF-8, and with a wrong column count."""
    num_lines = len(fields.first)
    with_nul = with_bad_utf8 = _at(num_lines, [])
    if NUL in content:
        with_nul = _at(num_lines, [i for i, line in enumerate(_lines(content)) if NUL in line])
    if not _is_utf8(content):
        bad = [i for i, line in enumerate(_lines(content)) if not _is_utf8(line)]
        with_bad_utf8 = _at(num_lines, bad)
    return with_nul, with_bad_utf8, (fields.columns < 2) | (fields.columns > 3)


def _at(length: int, positions: list[int]) -> Bools:
    """Return (length,) True at the positions."""
    mask = np.zeros(length, np.bool_)
    mask[positions] = True
    return mask


def _lines(content: bytes) -> list[bytes]:
    """Return the lines of a block without their newlines."""
    return content.split(b"\n")[:-1]


def _is_utf8(content: bytes) -> bool:
    """Say whether bytes decode as UTF-8."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_empty(texts: pa.Array) -> Bools:
    """Return (texts,) True where a text has no character."""
    return np.asarray(pc.equal(pc.binary_length(texts), 0), dtype=np.bool_)


def _is_tidy(content: bytes) -> bool:
    """Say whether all white space is single spaces, tabs and newlines; only ASCII is looked at."""
    data = np.frombuffer(content, np.uint8)
    is_white = data <= SPACE
    is_pair = is_white[1:] & is_white[:-1]
    is_strange = (data < SPACE) & (data != TAB) & (data != NEWLINE)
    return content.isascii() and not (is_white[0] or is_pair.any() or is_strange.any())


def _tidied(texts: pa.Array) -> pa.Array:
    """Bring all white space to one space between ids."""
    return pc.utf8_trim(pc.replace_substring_regex(texts, WHITE_SPACE, " "), " ")


def _check_labels(
    faults: npt.NDArray[np.int8], found: npt.NDArray[np.int8], labels: Labels, block: Block
) -> None:
    """Write the faults of the labels, and that of a header, where a line has no other fault."""
    good = faults == Fault.NONE
    if block.first_line == 1 and good[0] and _is_header(block, good & (found == BAD_LABEL)):
        faults[0] = Fault.HEADER
        good[0] = False
    if labels == "optional":
        num_labelled = np.count_nonzero(good & (found >= 0))
        num_unlabelled = np.count_nonzero(good & (found == NO_LABEL))
        labels = "required" if num_labelled >= num_unlabelled else "absent"
    if labels == "absent":
        faults[good & (found != NO_LABEL)] = Fault.UNWANTED
    else:
        faults[good & (found == BAD_LABEL)] = Fault.LABEL
        faults[good & (found == NO_LABEL)] = Fault.MISSING


def _is_header(block: Block, is_bad_label: Bools) -> bool:
    """Say whether line 1 is names: with the only bad label, or words before rows of numbers."""
    first, *rest = block.content.split(b"\n", HEADER_LINES + 1)[:-1]
    names = first.decode().split("\t")
    if is_bad_label[0]:
        has_number = any(raw_id.isdecimal() for name in names for raw_id in name.split())
        return bool(names[-1]) and not has_number and not is_bad_label[1:].any()
    are_words = all(HEADER_NAME.fullmatch(name) for name in names)
    return are_words and bool(rest) and all(NUMBERS.fullmatch(line) for line in rest)


def rejected_rows(
    path: Path, block: Block, faults: npt.NDArray[np.int8], limit: int | None
) -> Iterator[RejectedRow]:
    """Yield the first `limit` bad rows of a block, or all of them."""
    positions = np.flatnonzero(faults)[:limit].tolist()
    lines = _lines(block.content) if positions else []
    for position in positions:
        fault = Fault(faults[position])
        reason = block.known.get(position) or _reason(fault, _text(lines[position]))
        original = block.originals[position] if block.originals else lines[position]
        yield RejectedRow(path, block.first_line + position, _text(original), reason)


def _text(line: bytes) -> str:
    """Decode a line without loss."""
    return line.decode("utf-8", "surrogateescape")


def _reason(fault: Fault, text: str) -> str:
    """Say what is wrong with a row."""
    columns = text.split("\t")
    if fault == Fault.COLUMNS and not text.strip():
        return "expected 2 or 3 columns, got an empty line; remove it"
    return REASONS[fault].format(
        columns="1 column" if len(columns) == 1 else f"{len(columns)} columns",
        label=repr(columns[-1][:SHOWN_CHARACTERS]),
        row=repr(text[:SHOWN_CHARACTERS]),
    )
