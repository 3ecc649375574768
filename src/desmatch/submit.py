"""Write a submission, and check one before it leaves the house.

A submission is `result.tsv`, one probability a line in the order of the test file, and `result.zip`
that holds it. Nine significant digits keep any two different float32 scores apart. Float64 scores
that differ by less become ties: 1 - 1e-12 is written as 1.
"""

from __future__ import annotations

import lzma
import re
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from desmatch.data.read import count_pairs
from desmatch.disk import refuse_pipe
from desmatch.errors import UserError, listed
from desmatch.runs import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

TSV_NAME = "result.tsv"
ZIP_NAME = "result.zip"

MAX_BYTES = 1 << 30
"""A larger submission is refused, packed or not."""

FEW_DISTINCT = 0.5
"""A smaller share of distinct scores earns a warning."""

ZIP_MAGIC = b"PK"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
NOT_FINITE = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
SHOWN_CHARACTERS = 40

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError)
"""What zipfile raises on a damaged or locked archive."""


def write_submission(
    folder: Path, scores: npt.NDArray[np.floating], *, expected_rows: int
) -> tuple[Path, Path]:
    """Write `result.tsv` and `result.zip`, both or none; equal scores give equal bytes.

    Args:
        folder: Made if it is missing.
        scores: (rows,) probabilities in the order of the test file.
        expected_rows: Number of rows of the test file.

    Raises:
        UserError: The shape differs, or scores are not finite, outside [0, 1] or all equal.
    """
    tsv, packed = folder / TSV_NAME, folder / ZIP_NAME
    content = _score_lines(tsv, scores, expected_rows)
    with atomic_write(tsv) as partial_tsv, atomic_write(packed) as partial_zip:
        partial_tsv.write_bytes(content)
        member = zipfile.ZipInfo(TSV_NAME)  # dated 1980-01-01
        member.compress_type = zipfile.ZIP_DEFLATED
        member.external_attr = 0o644 << 16
        with zipfile.ZipFile(partial_zip, "w") as archive:
            archive.writestr(member, content)
    return tsv, packed


def write_scores(path: Path, chunks: Iterable[npt.NDArray[np.floating]]) -> None:
    """Write one probability a line, as in a submission; one chunk is held at a time.

    Args:
        path: The file.
        chunks: (rows,) probabilities each, one chunk after the other.

    Raises:
        UserError: As `write_submission`.
    """
    num_rows, first, are_equal = 0, "", True
    with atomic_write(path) as partial, partial.open("wb") as stream:
        for scores in chunks:
            refuse_scores(path, scores, first_row=num_rows)
            lines = _lines(scores)
            first = first or lines[0]
            are_equal = are_equal and {*lines} == {first}
            num_rows += len(lines)
            stream.write("".join(lines).encode())
        if num_rows > 1 and are_equal:
            raise UserError(_all_equal(path, float(first)))


def _score_lines(path: Path, scores: npt.NDArray[np.floating], expected_rows: int) -> bytes:
    """Return the scores as lines of text, or refuse them in the name of `path`."""
    if scores.shape != (expected_rows,):
        raise UserError(
            f"{path}: expected shape ({expected_rows},), one score for each row of the test file, "
            f"got {scores.shape}; predict that file again"
        )
    refuse_scores(path, scores)
    lines = _lines(scores)
    if len(lines) > 1 and len(set(lines)) == 1:
        raise UserError(_all_equal(path, float(lines[0])))
    return "".join(lines).encode()


def _lines(scores: npt.NDArray[np.floating]) -> list[str]:
    return [f"{score:.9g}\n" for score in (scores.astype(np.float64) + 0.0).tolist()]  # no -0


def refuse_scores(path: Path, scores: npt.NDArray[np.floating], *, first_row: int = 0) -> None:
    """Refuse what is no column of probabilities, in the name of `path`.

    Args:
        path: Where they were to be written.
        scores: (rows,).
        first_row: How many rows of the file come before these.

    Raises:
        UserError: A score is not finite or outside [0, 1].
    """
    outside = np.flatnonzero(~((scores >= 0) & (scores <= 1)))  # NaN is outside as well
    if outside.size:
        row = int(outside[0])
        raise UserError(
            f"{path}: expected scores in [0, 1], got {scores[row]} in row {first_row + row + 1} "
            f"({outside.size} such rows); pass finite probabilities, not logits"
        )


def _all_equal(path: Path, score: float) -> str:
    """Say that a constant column ranks nothing."""
    return (
        f"{path}: expected scores that differ, got {score:.9g} everywhere, which ranks nothing; "
        "write the probabilities of the model"
    )


def check_submission(path: Path, *, expected_rows: int) -> list[str]:
    """Return what is wrong with a `.tsv` or `.zip` submission, each with its place and mend.

    Args:
        path: The file.
        expected_rows: Number of rows of the test file.

    Returns:
        One text a problem; empty if the file can be handed in.
    """
    return _scores_and_problems(path, expected_rows)[1]


def describe_check(path: Path, test: Path) -> str:
    """Check a submission against the test file and say the result in words.

    Raises:
        UserError: With the problems of the submission, or those of the test file.
    """
    num_rows = count_pairs(test, labels="optional")
    scores, problems = _scores_and_problems(path, num_rows)
    if problems:
        raise UserError(listed(problems))
    distinct = len(np.unique(scores)) / len(scores)
    lines = [
        f"{path}: {num_rows} scores for the {num_rows} rows of {test}, from {min(scores):.9g} to "
        f"{max(scores):.9g}, {distinct:.1%} of them distinct; the format is right.",
        "The file cannot show whether its rows are in the order of the test file: "
        "write it from predictions of that very file.",
    ]
    if distinct < FEW_DISTINCT:
        lines.append(
            f"Warning: only {distinct:.1%} of the scores are distinct, and rows with equal scores "
            "are not ranked, which lowers the AUC; write probabilities with nine digits."
        )
    return "\n".join(lines)


def _scores_and_problems(path: Path, expected_rows: int) -> tuple[list[float], list[str]]:
    """Read the scores, as many as are numbers, and say what is wrong with the file."""
    try:
        lines = _submission_text(path).removesuffix("\n").split("\n")
    except UserError as error:
        return [], [str(error)]
    problems = []
    if len(lines) != expected_rows:
        problems.append(
            f"{path}: expected {expected_rows} lines, one for each row of the test file, "
            f"got {len(lines)}; predict that file again"
        )
    scores = []
    for number, line in enumerate(lines, start=1):
        if reason := _line_problem(line.removesuffix("\r"), is_first=number == 1):
            problems.append(f"{path}:{number}: {reason}")
        else:
            scores.append(float(line))
    if len(scores) > 1 and len(set(scores)) == 1:
        problems.append(_all_equal(path, scores[0]))
    return scores, problems


def _line_problem(line: str, *, is_first: bool) -> str:
    """Say why a line is no probability, or return an empty text."""
    came = repr(line[:SHOWN_CHARACTERS])
    one_number = "expected one number"
    if not line.strip():
        return f"{one_number}, got an empty line; remove it or write the score"
    if NOT_FINITE.fullmatch(line):
        return f"expected a finite number, got {came}; mend the model or the average"
    if is_first and not re.search(r"\d", line):
        return f"{one_number}, got what looks like a header ({came}); remove this line"
    if len(re.split(r"[\s,;]+", line.strip())) > 1:
        return f"{one_number}, got several columns ({came}); keep the score alone"
    if not NUMBER.fullmatch(line):
        return f"{one_number}, got {came}; write a probability such as 0.25"
    if not 0 <= float(line) <= 1:
        return f"expected a probability in [0, 1], got {line}; pass logits through a sigmoid"
    return ""


def _submission_text(path: Path) -> str:
    """Read the text of a plain or packed submission.

    Raises:
        UserError: There is no such text; the message names the file.
    """
    refuse_pipe(path)
    try:
        with path.open("rb") as stream:
            is_zip = path.suffix == ".zip" or stream.peek(2)[:2] == ZIP_MAGIC
            content = _only_member(path) if is_zip else stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the name") from None
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"{path}: cannot be read ({why}); check the file") from None
    if not content or len(content) > MAX_BYTES:
        came = f"more than {MAX_BYTES} bytes" if content else "an empty file"
        raise UserError(f"{path}: expected one probability a line, got {came}; write it again")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: expected UTF-8, got other bytes; write it again") from None


def _only_member(path: Path) -> bytes:
    """Read the one file in a zip, up to the limit of this module and one byte more."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) != 1:
                came = ", ".join(member.filename for member in members[:5])
                raise UserError(
                    f"{path}: expected one file in the zip, got {len(members)} "
                    f"({came or 'nothing'}); pack {TSV_NAME} alone"
                )
            with archive.open(members[0]) as stream:
                return stream.read(MAX_BYTES + 1)
    except ZIP_ERRORS as error:
        raise UserError(f"{path}: not a readable zip ({error}); pack it again") from None
