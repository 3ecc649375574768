"""The labelled pairs nearest to one that is asked about: by the ids of both texts, in either order.

A text is a vector of TF-IDF, its ids weighed as `ensemble.lexical` weighs them, of length 1. Two
pairs are as alike as their texts are on average, in whichever order of one of them that is more:

    max(cos(a, a') + cos(b, b'), cos(a, b') + cos(b, a')) / 2

Shapes: R distinct rows, T their distinct texts, V distinct ids, N distinct ids of a pair.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.sparse import csc_array, csr_array

from desmatch.data.graph import build_graph, find_repeats, number_texts
from desmatch.data.read import read_tables, split_ids
from desmatch.ensemble.lexical import count_texts
from desmatch.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ROWS = "rows.parquet"
"""What an export with rows keeps them in."""


class NearRow(NamedTuple):
    """A labelled pair that is near to one asked about."""

    a: str
    b: str
    label: int
    similarity: float
    """In [0, 1]: 1 of the same ids as often in both texts."""


class NearestRows:
    """Labelled pairs, by the ids that their texts hold.

    In memory: the texts, 8 bytes for each distinct id of each distinct text, 17 for each row.

    Args:
        rows: Columns a and b (ids separated by single spaces) and label.
    """

    def __init__(self, rows: pa.Table) -> None:
        rows = distinct_rows(rows)
        self.labels = np.asarray(rows["label"], np.int8)
        both = pa.chunked_array([*rows["a"].chunks, *rows["b"].chunks])
        encoded = both.combine_chunks().dictionary_encode()
        self.texts = encoded.dictionary
        self.sides = np.asarray(encoded.indices, np.int64).reshape(2, -1)  # (2, R), into T
        self.counts = count_texts(self.texts)
        split = split_ids(self.texts)
        names = split.dictionary.to_pylist()
        self.columns = {name: column for column, name in enumerate(names)}
        weights, _ = self.counts.weights(names)
        shape = len(self.texts), len(names)
        starts = split.offsets.astype(np.int32)  # as the codes are, or all indices take 8 bytes
        vectors = csr_array((weights[split.codes], split.codes, starts), shape=shape)
        vectors.sum_duplicates()
        norms = np.sqrt(vectors.power(2).sum(axis=1))
        vectors.data /= np.repeat(norms, np.diff(vectors.indptr))
        self.vectors = csc_array(vectors.astype(np.float32))  # (T, V): a pair asks for few columns

    @classmethod
    def read(cls, path: Path) -> NearestRows:
        """Read the labelled pairs of a file, in any format that a run reads.

        Raises:
            UserError: It cannot be read, has no row, or a row is malformed or has no label.
        """
        tables = [*read_tables(path, labels="required")]
        if not sum(map(len, tables)):
            raise UserError(f"{path}: expected rows ids_a<TAB>ids_b<TAB>label, got an empty file")
        return cls(pa.concat_tables(tables))

    def search(self, a: str, b: str, *, num_rows: int) -> list[NearRow]:
        """Return the nearest rows, the nearest first, those equally near in their own order.

        Rows that share no id with the pair are none of them.

        Args:
            a: Ids separated by single spaces, at least one.
            b: The second text.
            num_rows: At most so many.
        """
        to_a, to_b = self._cosines(a, b)
        first, second = self.sides
        straight, crossed = to_a[first] + to_b[second], to_a[second] + to_b[first]  # (R,)
        similarity = np.minimum(np.maximum(straight, crossed) / 2, 1)
        floor = np.partition(similarity, -num_rows)[-num_rows] if num_rows < len(similarity) else 0
        chosen = np.flatnonzero((similarity >= floor) & (similarity > 0))
        chosen = chosen[np.argsort(-similarity[chosen], kind="stable")][:num_rows]
        texts = (self.texts.take(side[chosen]).to_pylist() for side in self.sides)
        columns = *texts, self.labels[chosen].tolist(), similarity[chosen].tolist()
        return [NearRow(*row) for row in zip(*columns, strict=True)]

    def _cosines(self, a: str, b: str) -> NDArray[np.float32]:
        """Return (2, T), of both texts of a pair with all texts of the rows."""
        often = [Counter(text.split(" ")) for text in (a, b)]
        names = [*(often[0] | often[1])]
        weights, _ = self.counts.weights(names)  # ids that no row has make a pair less alike, too
        vectors = np.array([[each[name] for name in names] for each in often]) * weights  # (2, N)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        known = [at for at, name in enumerate(names) if name in self.columns]
        columns = [self.columns[names[at]] for at in known]
        asked = vectors[:, known].astype(np.float32)
        cosines: NDArray[np.float32] = np.ascontiguousarray((self.vectors[:, columns] @ asked.T).T)
        return cosines


def distinct_rows(rows: pa.Table) -> pa.Table:
    """Return the first of all rows that have the same label and texts, these in either order."""
    graph = build_graph(*number_texts([rows["a"], rows["b"]]))
    return rows.filter(pa.array(~find_repeats(graph, np.asarray(rows["label"])).repeats))
