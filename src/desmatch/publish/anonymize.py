"""Plain pairs to numbered ones, and the key that alone leads back.

Files are read row by row; what is held in memory is the vocabulary. No text, token or value of the
input is ever part of an error or of what is printed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from desmatch.data.sources import GZIP_SUFFIX
from desmatch.errors import UserError
from desmatch.publish.key import Key, extend_key, open_key, write_key
from desmatch.publish.numbers import ROWS, Numbering, keyed
from desmatch.publish.plain import Columns, read_plain
from desmatch.publish.shuffle import shuffle_lines
from desmatch.publish.tokens import AUTO, Tokens, load_tokens
from desmatch.runs import atomic_folder, file_digest, require_new

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from desmatch.publish.plain import PlainPair


@dataclass(frozen=True, kw_only=True, slots=True)
class Protection:
    """What is hidden beyond the words themselves."""

    min_count: int = 1
    """Tokens that the files of one command hold fewer times share a number."""
    rare_buckets: int = 1
    """How many such numbers there are."""
    is_shuffled: bool = False
    """Whether the rows of each file are put into an order that the secret decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What to publish, and where to."""

    inputs: Sequence[Path]
    out: Path
    """A new folder; FILE.csv becomes FILE.tsv in it."""
    key: Path
    columns: Columns = field(default_factory=Columns)
    tokens: str = AUTO
    lowercase: bool = False
    secret: bytes | None = field(default=None, repr=False)
    """None: the key file's, or a random one."""
    protection: Protection = field(default_factory=Protection)
    may_hold_key: bool = False
    """Whether the key may lie in `out`."""


class PublishedFile(NamedTuple):
    """One numbered file."""

    path: Path
    num_rows: int
    is_labelled: bool


class Published(NamedTuple):
    """What was written."""

    files: list[PublishedFile]
    num_numbers: int
    """Distinct tokens that have a number of their own in these files."""
    num_rare: int
    """Distinct tokens that share one."""
    num_in_key: int
    """Tokens of the key file, those of other days too."""


def anonymize(request: Request) -> Published:
    """Write all inputs as numbered pairs and their key, or nothing.

    Each output has rows `ids_a<TAB>ids_b[<TAB>label]`, as `desmatch.data.read` reads them.

    Raises:
        UserError: An input cannot be read (or not twice, for `min_count`) or has a malformed row,
            the folder is there already, or the key file does not fit.
    """
    targets = _targets(request.inputs)
    require_new(request.out)
    _require_rereadable(request)
    inside = _place_inside(request)
    tokens = load_tokens(request.tokens, lowercase=request.lowercase)
    key = open_key(request.key, secret=request.secret, tokens=tokens.identity)
    work = _Work(request, tokens, key)
    rare = work.find_rare()
    with atomic_folder(request.out) as folder:
        files = [work.write(source, folder / name) for name, source in targets.items()]
        key = replace(key, numbers=work.published, rare=work.rare_numbers)
        if inside is None:
            num_in_key = extend_key(request.key, key)
        else:
            write_key(folder / inside, key)
            num_in_key = len(key.numbers)
    files = [file._replace(path=request.out / file.path.name) for file in files]
    return Published(files, len(key.numbers), len(rare), num_in_key)


def _targets(inputs: Sequence[Path]) -> dict[str, Path]:
    """Return the name of each output and the input it is made of.

    Raises:
        UserError: Two inputs would have the same output.
    """
    targets: dict[str, Path] = {}
    for path in inputs:
        name = f"{Path(path.name.removesuffix(GZIP_SUFFIX)).stem}.tsv"
        if name in targets:
            raise UserError(
                f"{path}: would be written as {name}, as {targets[name]} is; rename one of them"
            )
        targets[name] = path
    return targets


def _require_rereadable(request: Request) -> None:
    """Refuse a pipe where rows are counted first and numbered afterwards."""
    for path in request.inputs if request.protection.min_count > 1 else ():
        if path.is_fifo() or path.is_char_device():
            raise UserError(f"{path}: a pipe; --min-count reads twice: write the rows to a file")


def _place_inside(request: Request) -> Path | None:
    """Return the key's place in the output folder, or none where it lies elsewhere.

    Raises:
        UserError: It lies there and may not.
    """
    key, out = request.key.resolve(), request.out.resolve()
    if not key.is_relative_to(out):
        return None
    if not request.may_hold_key:
        raise UserError(
            f"{request.key}: lies in the folder that is published; name another place, or add "
            "--key-in-out if it will be taken out before"
        )
    return key.relative_to(out)


class _Work:
    """Counting and numbering the rows of all inputs."""

    def __init__(self, request: Request, tokens: Tokens, key: Key) -> None:
        self.request, self.key = request, key
        self.numbers = Numbering(key.secret, rare_buckets=request.protection.rare_buckets)
        self._split = tokens.split
        self._rare: dict[str, str] = {}

    @property
    def published(self) -> dict[str, str]:
        """Token to number, of tokens with a number of their own."""
        return {token: number for token, number in self.numbers.items() if token not in self._rare}

    @property
    def rare_numbers(self) -> tuple[str, ...]:
        """The numbers that stand for rare tokens in the outputs."""
        return tuple(sorted(set(self._rare.values())))

    def find_rare(self) -> dict[str, str]:
        """Count all tokens if some may be rare; return those that are, with their numbers."""
        least = self.request.protection.min_count
        if least > 1:
            counts: Counter[str] = Counter()
            for path in self.request.inputs:
                for row in self._rows(path, "counting"):
                    for side in ("a", "b"):
                        counts.update(self._tokens(path, row, side))
            rare = (token for token, count in counts.items() if count < least)
            self._rare = {token: self.numbers.rare_number(token) for token in rare}
            self.numbers.update(self._rare)
        return self._rare

    def write(self, source: Path, target: Path) -> PublishedFile:
        """Write one file of numbered pairs."""
        num_rows, is_labelled = 0, False
        number = self.numbers.__getitem__
        with target.open("w", encoding="ascii", newline="\n") as stream:
            for row in self._rows(source, "numbering"):
                a, b = (" ".join(map(number, self._tokens(source, row, side))) for side in "ab")
                is_labelled = row.label is not None
                stream.write(f"{a}\t{b}\t{row.label}\n" if is_labelled else f"{a}\t{b}\n")
                num_rows += 1
        if self.request.protection.is_shuffled:
            seed = keyed(self.key.secret, ROWS, file_digest(target).encode())
            shuffle_lines(target, rng=np.random.default_rng(seed))
        return PublishedFile(target, num_rows, is_labelled)

    def _rows(self, path: Path, doing: str) -> Iterator[PlainPair]:
        rows = read_plain(path, self.request.columns)
        return iter(tqdm(rows, desc=f"{doing} {path.name}", unit="row", leave=False))

    def _tokens(self, path: Path, row: PlainPair, side: str) -> list[str]:
        """Return the tokens of one text of a row.

        Raises:
            UserError: It has none, or the user's tokenizer fails.
        """
        text = row.a if side == "a" else row.b
        try:
            found = self._split(text)
        except Exception:  # of a tokenizer, whose words may show the text
            raise UserError(
                f"{path}:{row.line}: the tokenizer fails on text {side}; mend the text, or take "
                "--tokens auto"
            ) from None
        if not found:
            raise UserError(
                f"{path}:{row.line}: text {side} has no token; write a text or remove the row"
            )
        return found
