"""How alike the two texts of a pair are by their ids alone, measured in many ways.

All measures are the same for both orders of a pair: what differs by direction (BM25, containment)
is given as the lower and the higher of both.

Shapes: B pairs, N distinct ids of each pair together, V distinct ids, L ids of a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from desmatch.data.counts import COUNTED_TEXTS, IdCounter, IdCounts
from desmatch.data.read import split_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    from desmatch.data.read import SplitIds

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEXICAL = (
    "tfidf_cosine",
    "bm25_lower",
    "bm25_higher",
    "jaccard",
    "dice",
    "containment_lower",
    "containment_higher",
    "edit_distance",
    "common_subsequence",
    "common_prefix",
)
"""The names that `lexical_features` returns, in its order."""

BM25_SATURATION = 1.2
"""k1: how soon further occurrences of an id stop counting (Robertson & Zaragoza 2009)."""

BM25_LENGTH = 0.75
"""b: how much a long text is held against it."""

BLOCK = 8_192
"""Most pairs described at a time, so that their arrays stay in the processor's cache."""

BLOCK_CELLS = 2**21
"""Most cells of a block's padded texts: a text of a million ids is a block of its own."""

MAX_ALIGNED = 256
"""A text's first ids that are aligned with the other's: time grows with the product of both."""


@dataclass(frozen=True)
class TextCounts:
    """In how many texts each id occurs; no label is involved, so all texts may be counted.

    Attributes:
        texts_with: Number of texts that hold an id.
        num_texts: Texts counted.
        mean_length: Ids of a text.
    """

    texts_with: IdCounts
    num_texts: int
    mean_length: float

    def weights(self, ids: pa.Array) -> tuple[Floats, Floats]:
        """Return (V,) twice: scikit-learn's smooth IDF, and BM25's; an unseen id counts 0 texts."""
        texts_with = self.texts_with.look_up(ids).astype(np.float64)
        tfidf = np.log((1 + self.num_texts) / (1 + texts_with)) + 1
        bm25 = np.log1p((self.num_texts - texts_with + 0.5) / (texts_with + 0.5))
        return tfidf, bm25


def count_texts(*columns: Any) -> TextCounts:  # noqa: ANN401 - any Arrow array or list of texts
    """Count the texts of one or more columns, each with ids separated by single spaces."""
    counter = IdCounter()
    num_texts = num_ids = 0
    for texts in map(_chunked, columns):
        for start in range(0, len(texts), COUNTED_TEXTS):
            split = split_ids(texts.slice(start, COUNTED_TEXTS))
            counter.add(_texts_with(split))
            num_texts += len(split.offsets) - 1
            num_ids += len(split.codes)
    return TextCounts(counter.total(), num_texts, num_ids / max(num_texts, 1))


def _texts_with(split: SplitIds) -> IdCounts:
    """Return in how many texts each id occurs."""
    num_ids = max(len(split.dictionary), 1)
    text = np.repeat(np.arange(len(split.offsets) - 1), np.diff(split.offsets))
    held = np.sort(text * num_ids + split.codes)
    first = held[np.diff(held, prepend=-1) > 0]  # of each id in each text
    return IdCounts(split.dictionary, np.bincount(first % num_ids, minlength=len(split.dictionary)))


def lexical_features(
    a: Any,  # noqa: ANN401 - any Arrow array or list of texts
    b: Any,  # noqa: ANN401 - any Arrow array or list of texts
    counts: TextCounts,
) -> dict[str, Floats]:
    """Describe how alike the texts of pairs are, one array (B,) a feature.

    | feature | of a pair |
    |---|---|
    | tfidf_cosine | cosine of both TF-IDF vectors, as scikit-learn's TfidfVectorizer makes them |
    | bm25_lower, _higher | each distinct id of one text as a query to the other, Okapi BM25 |
    | jaccard | distinct ids in both over distinct ids in either |
    | dice | twice the ids in both, as often as they occur in both, over both lengths |
    | containment_lower, _higher | share of a text's distinct ids that the other has |
    | edit_distance | insertions, deletions and replacements, over the longer length (Levenshtein) |
    | common_subsequence | longest common subsequence, over the longer length |
    | common_prefix | ids before the first difference, over the longer length |

    Two empty texts are alike: distance 0, BM25 0 and 1 in all else. The last three features look
    at the first 256 ids of each text.

    Args:
        a: (B,), texts, ids separated by single spaces.
        b: (B,), the second texts.
        counts: Of the texts of all files, say.
    """
    split = _split(a, b)
    num_pairs = (len(split.offsets) - 1) // 2
    weights = counts.weights(split.dictionary)
    features = {name: np.empty(num_pairs) for name in LEXICAL}
    lengths = np.diff(split.offsets).reshape(2, num_pairs)
    for rows in _blocks(lengths):
        texts = _texts(split, rows, lengths)
        bags = _bags(texts, len(split.dictionary))
        described = {**_compare_bags(bags, weights, counts.mean_length), **_align(texts)}
        for name, value in described.items():
            features[name][rows] = value
    return features


def _blocks(lengths: Ints) -> Iterator[Ints]:
    """Yield the pairs of (2, B) lengths, longest first, in blocks of like lengths."""
    longer = lengths.max(axis=0)
    order = np.lexsort((-lengths.min(axis=0), -longer))
    start = 0
    while start < len(order):
        size = max(1, min(BLOCK, BLOCK_CELLS // max(1, int(longer[order[start]]))))
        yield order[start : start + size]
        start += size


def _split(a: Any, b: Any) -> SplitIds:  # noqa: ANN401 - any Arrow array or list of texts
    return split_ids(pa.chunked_array([*_chunked(a).chunks, *_chunked(b).chunks], pa.string()))


def _chunked(texts: Any) -> pa.ChunkedArray:  # noqa: ANN401 - any Arrow array or list of texts
    is_chunked = isinstance(texts, pa.ChunkedArray)
    return texts if is_chunked else pa.chunked_array([pa.array(texts, pa.string())])


class _Texts(NamedTuple):
    """Pairs as padded arrays.

    Attributes:
        codes: Two arrays (B, L), numbers of ids; -1 and -2 after the end of a text.
        lengths: (2, B).
    """

    codes: tuple[Ints, Ints]
    lengths: Ints


def _texts(split: SplitIds, rows: Ints, lengths: Ints) -> _Texts:
    """Return the texts of the pairs `rows`."""
    sides = []
    for side in (0, 1):
        starts = split.offsets[side * lengths.shape[1] + rows]
        length = lengths[side, rows]
        columns = np.arange(int(length.max(initial=0)))
        is_id = columns < length[:, None]
        places = np.where(is_id, starts[:, None] + columns, 0)
        codes = split.codes[places] if len(split.codes) else places
        sides.append(np.where(is_id, codes, -1 - side).astype(np.int64))
    return _Texts((sides[0], sides[1]), lengths[:, rows])


class _Bags(NamedTuple):
    """The distinct ids of every pair, and how often each text holds them.

    Attributes:
        pair: (N,), the pair of an id.
        code: (N,), its number.
        often: (2, N), in `a` and in `b`.
        lengths: (2, B), ids of each text.
    """

    pair: Ints
    code: Ints
    often: Ints
    lengths: Ints

    def total(self, values: ArrayLike) -> Floats:
        """Return (B,), the sum over each pair's distinct ids of values (N,)."""
        num_pairs = self.lengths.shape[1]
        return np.bincount(self.pair, values, minlength=num_pairs).astype(np.float64)


def _bags(texts: _Texts, num_codes: int) -> _Bags:
    """Sort each pair's ids, so that equal ones are one run."""
    keys = []
    for side, codes in enumerate(texts.codes):
        pair, column = np.nonzero(codes >= 0)
        keys.append((pair * num_codes + codes[pair, column]) * 2 + side)
    key = np.sort(np.concatenate(keys))
    starts = np.flatnonzero(np.diff(key >> 1, prepend=-1))
    if not len(starts):
        nothing = np.empty(0, np.int64)
        return _Bags(nothing, nothing, np.empty((2, 0), np.int64), texts.lengths)
    in_b = np.add.reduceat(key & 1, starts)
    in_a = np.diff(starts, append=len(key)) - in_b
    distinct = key[starts] >> 1
    return _Bags(distinct // num_codes, distinct % num_codes, np.stack([in_a, in_b]), texts.lengths)


def _compare_bags(
    bags: _Bags, weights: tuple[Floats, Floats], mean_length: float
) -> dict[str, Floats]:
    """Return what does not look at the order of ids."""
    tfidf, bm25 = weights[0][bags.code], weights[1][bags.code]
    in_both = bags.total((bags.often > 0).all(axis=0))
    distinct = np.stack([bags.total(often > 0) for often in bags.often])
    vectors = bags.often * tfidf  # (2, N)
    norms = [np.sqrt(bags.total(each**2)) for each in vectors]
    found = np.stack([_bm25(bags, bm25, side, mean_length) for side in (0, 1)])
    both_empty = (distinct.sum(axis=0) == 0).astype(np.float64)
    containment = _share(in_both, distinct, when_empty=both_empty)
    return {
        "tfidf_cosine": _share(
            bags.total(vectors[0] * vectors[1]), norms[0] * norms[1], when_empty=both_empty
        ),
        "bm25_lower": found.min(axis=0),
        "bm25_higher": found.max(axis=0),
        "jaccard": _share(in_both, distinct.sum(axis=0) - in_both),
        "dice": _share(2 * bags.total(bags.often.min(axis=0)), bags.lengths.sum(axis=0)),
        "containment_lower": containment.min(axis=0),
        "containment_higher": containment.max(axis=0),
    }


def _bm25(bags: _Bags, idf: Floats, side: int, mean_length: float) -> Floats:
    """Return (B,), how well the text `side` answers the other text's distinct ids."""
    often, is_asked = bags.often[side], bags.often[1 - side] > 0
    relative = bags.lengths[side][bags.pair] / max(mean_length, 1e-9)
    damping = BM25_SATURATION * (1 - BM25_LENGTH + BM25_LENGTH * relative)
    return bags.total(is_asked * idf * often * (BM25_SATURATION + 1) / (often + damping))


def _share(part: Floats, whole: Floats, when_empty: Floats | float = 1.0) -> Floats:
    whole = np.asarray(whole, np.float64)
    empty = np.broadcast_to(when_empty, whole.shape).astype(np.float64)
    return np.divide(np.broadcast_to(part, whole.shape), whole, out=empty, where=whole > 0)


def _align(texts: _Texts) -> dict[str, Floats]:
    """Return what looks at the order of ids, by dynamic programs over all pairs at once."""
    lengths = np.minimum(texts.lengths, MAX_ALIGNED)
    longer = lengths.max(axis=0)
    first, second = (codes[:, :MAX_ALIGNED] for codes in texts.codes)
    if first.shape[1] > second.shape[1]:  # the outer loop goes over the shorter texts
        first, second, lengths = second, first, lengths[::-1]
    grid = _Grid(first.T.copy(), second.T.copy(), lengths)
    shorter = min(first.shape[1], second.shape[1])
    is_same = first[:, :shorter] == second[:, :shorter]
    prefix = np.cumprod(is_same, axis=1).sum(axis=1)
    distance = _share(grid.last(_edit_row, is_counting=True), longer, when_empty=0.0)
    return {
        "edit_distance": distance,
        "common_subsequence": _share(grid.last(_subsequence_row, is_counting=False), longer),
        "common_prefix": _share(prefix.astype(np.float64), longer),
    }


class _Grid(NamedTuple):
    """A table for each pair, a row an id of one text and a column an id of the other.

    Attributes:
        first: (L, B), codes of the outer texts.
        second: (L', B), codes of the inner texts.
        lengths: (2, B), of both.
    """

    first: Ints
    second: Ints
    lengths: Ints

    def last(
        self, next_row: Callable[[NDArray[np.int16], NDArray[np.bool_]], None], *, is_counting: bool
    ) -> Floats:
        """Return (B,), each pair's cell behind the ends of both texts.

        Args:
            next_row: Turns row i of the table (L' + 1, B) into row i + 1, in place, given where the
                outer id equals the inner ones (L', B).
            is_counting: Whether the table's border is 0, 1, 2 ... and not 0.
        """
        num_columns, num_pairs = len(self.second) + 1, self.first.shape[1]
        border = np.arange(num_columns, dtype=np.int16)[:, None] * is_counting
        row = np.repeat(border, num_pairs, axis=1).astype(np.int16)
        pairs = np.arange(num_pairs)
        result: Floats = row[self.lengths[1], pairs].astype(np.float64)
        for number, code in enumerate(self.first, start=1):
            next_row(row, self.second == code)
            ends = np.flatnonzero(self.lengths[0] == number)
            result[ends] = row[self.lengths[1, ends], ends]
        return result


def _edit_row(row: NDArray[np.int16], is_same: NDArray[np.bool_]) -> None:
    """D[i + 1, j] = min(D[i, j] + 1, D[i, j - 1] + (ids differ), D[i + 1, j - 1] + 1)."""
    diagonal = row[:-1] + ~is_same
    row += 1
    np.minimum(row[1:], diagonal, out=row[1:])
    for column in range(1, len(row)):
        np.minimum(row[column], row[column - 1] + 1, out=row[column])


def _subsequence_row(row: NDArray[np.int16], is_same: NDArray[np.bool_]) -> None:
    """S[i + 1, j] = max(S[i, j], S[i, j - 1] + (ids are equal), S[i + 1, j - 1])."""
    np.maximum(row[1:], row[:-1] + is_same, out=row[1:])
    for column in range(1, len(row)):
        np.maximum(row[column], row[column - 1], out=row[column])
