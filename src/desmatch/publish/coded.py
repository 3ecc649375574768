"""Numbered pairs as flat arrays of codes, for counting.

Shapes: B pairs, T = 2B texts (first all `a`, then all `b`), N ids of all texts laid end to end, V
distinct ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from desmatch.data.graph import pair_keys
from desmatch.data.read import read_tables, split_ids
from desmatch.data.vocabulary import positions_within
from desmatch.errors import UserError
from desmatch.intake import ROLES, SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]

NO_LABEL = -1


@dataclass(frozen=True)
class CodedPairs:
    """All pairs of some files.

    Attributes:
        ids: (V,), the id of each code.
        codes: (N,), int64.
        offsets: (T + 1,), where each text begins; text i is `a` of pair i, text B + i its `b`.
        labels: (B,), int8, 0, 1 or NO_LABEL.
    """

    ids: Sequence[str]
    codes: Ints
    offsets: Ints
    labels: NDArray[np.int8]

    @property
    def num_pairs(self) -> int:
        """B."""
        return len(self.labels)

    @cached_property
    def counts(self) -> Ints:
        """(V,), how often each id occurs."""
        return np.bincount(self.codes, minlength=len(self.ids))

    @cached_property
    def text_of(self) -> Ints:
        """(N,), the text of each id."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    @cached_property
    def texts(self) -> Ints:
        """(T,), a number for each distinct text."""
        lengths = np.diff(self.offsets)
        rng = np.random.default_rng(0)
        of_code, of_place = (
            rng.integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)
            for size in (len(self.ids), int(lengths.max(initial=0)))
        )
        values = of_code[self.codes] * of_place[positions_within(lengths)]  # modulo 2^64
        sums = np.add.reduceat(values, self.offsets[:-1])  # no text is empty
        return np.unique(sums, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def rows_with_id(self) -> Ints:
        """(V,), in how many pairs each id occurs."""
        pair = self.text_of % self.num_pairs
        held = np.unique(pair * len(self.ids) + self.codes)
        return np.bincount(held % len(self.ids), minlength=len(self.ids))

    @property
    def rows_with_text(self) -> Ints:
        """(distinct texts,), in how many pairs each text occurs."""
        a, b = self.texts.reshape(2, -1)
        return np.bincount(np.concatenate([a, b[a != b]]))

    @property
    def rows_with_pair(self) -> Ints:
        """(distinct pairs,), how often each pair occurs, in either order."""
        a, b = self.texts.reshape(2, -1)
        return np.unique(pair_keys(a, b, int(self.texts.max()) + 1), return_counts=True)[1]

    @property
    def distinct(self) -> CodedPairs:
        """The first of each distinct text, and no labels."""
        first = np.unique(self.texts, return_index=True)[1]
        lengths = np.diff(self.offsets)[first]
        places = np.repeat(self.offsets[first], lengths) + positions_within(lengths)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return replace(self, codes=self.codes[places], offsets=offsets)


def read_coded(places: Sequence[Path]) -> CodedPairs:
    """Read files of numbered pairs, or folders of them.

    Raises:
        UserError: A file is missing or has a malformed row, or a folder has none.
    """
    files = [path for place in places for path in _files(place)]
    tables = [table for path in files for table in read_tables(path, labels="optional")]
    if not tables:
        raise UserError(f"{places[0]}: expected pairs, got no row")
    rows = pa.concat_tables(tables)
    chunks = [*rows["a"].chunks, *rows["b"].chunks]
    dictionary, codes, offsets = split_ids(pa.chunked_array(chunks, pa.string()))
    labels = rows["label"].fill_null(NO_LABEL).to_numpy().astype(np.int8)
    return CodedPairs(dictionary.to_pylist(), codes.astype(np.int64), offsets, labels)


def _files(place: Path) -> list[Path]:
    """Return a file itself, or the contest files of a folder, or else all files of pairs in it."""
    if not place.is_dir():
        return [place]
    by_role = [place / f"{role}{suffix}" for role in ROLES for suffix in SUFFIXES]
    found = [path for path in by_role if path.is_file()] or sorted(
        path for path in place.iterdir() if path.name.endswith(SUFFIXES)
    )
    if not found:
        raise UserError(f"{place}: no {', '.join(SUFFIXES)} in this folder; name the files")
    return found
