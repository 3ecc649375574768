"""What can be said of a pair without a model: lengths, overlap, how frequent its ids are.

Shapes: B pairs, N ids of all texts laid end to end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from desmatch.data.counts import IdCounts
from desmatch.data.read import split_ids

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from desmatch.data.read import SplitIds
    from desmatch.data.vocabulary import Vocabulary

FEATURES = (
    "length",
    "length_difference",
    "overlap",
    "oov_share",
    "rarest_count",
    "mean_log_count",
    "is_same_bag",
)
"""The names that `row_features` returns, in its order."""


BLOCK = 16_384
"""Pairs described at a time: their arrays stay in the processor's cache, four times as fast."""


class _FlatIds(NamedTuple):
    """The ids of B pairs, first all texts `a`, then all texts `b`.

    Attributes:
        codes: (N,), number of each id.
        pair: (N,), the pair of each id.
        side: (N,), 0 in `a`, 1 in `b`.
        lengths: (2, B), ids of each text.
    """

    codes: NDArray[np.int32]
    pair: NDArray[np.int64]
    side: NDArray[np.int64]
    lengths: NDArray[np.int64]


def row_features(
    a: Any,  # noqa: ANN401 - any Arrow array or list of texts
    b: Any,  # noqa: ANN401 - any Arrow array or list of texts
    vocabulary: Vocabulary,
    counts: Mapping[str, int] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Describe pairs by numbers, one array (B,) a feature; nothing is cut to a model's length.

    | feature | of a pair |
    |---|---|
    | length | ids of both texts |
    | length_difference | absolute difference of their lengths, ids |
    | overlap | distinct ids in both over distinct ids in either (Jaccard); 1 for empty texts |
    | oov_share | share of its ids without a row of their own in the vocabulary |
    | rarest_count | count of its rarest id |
    | mean_log_count | mean of log(1 + count) over its ids |
    | is_same_bag | 1 where both texts hold the same ids equally often, in any order, else 0 |

    Args:
        a: (B,), texts, ids separated by single spaces.
        b: (B,), the second texts.
        vocabulary: Says which ids have a row of their own.
        counts: Frequency of every id over all files; an id that is not in it counts 0. None: the
            vocabulary's counts, which are those of its frequent ids alone.
    """
    split = split_ids(pa.chunked_array([*_chunks(a), *_chunks(b)], "string"))
    own = IdCounts(pa.array(vocabulary.ids, pa.string()), np.array(vocabulary.counts, np.int64))
    known = own if counts is None else IdCounts.of(counts)
    count_of = known.look_up(split.dictionary).astype(np.float64)
    is_oov = np.asarray(pc.invert(pc.is_in(split.dictionary, value_set=own.ids)), np.float64)
    num_pairs = (len(split.offsets) - 1) // 2
    features = {name: np.empty(num_pairs) for name in FEATURES}
    for start in range(0, num_pairs, BLOCK):
        ids = _flat_ids(split, start, min(start + BLOCK, num_pairs))
        for name, value in _describe(ids, count_of, is_oov).items():
            features[name][start : start + BLOCK] = value
    return features


def _flat_ids(split: SplitIds, start: int, end: int) -> _FlatIds:
    """Return the ids of the pairs `start` to `end`."""
    num_pairs = (len(split.offsets) - 1) // 2
    offsets = np.stack([split.offsets[start : end + 1], split.offsets[num_pairs:][start : end + 1]])
    codes = [split.codes[first:last] for first, last in offsets[:, [0, -1]]]
    lengths = np.diff(offsets, axis=1)
    pair = np.repeat(np.tile(np.arange(end - start), 2), lengths.ravel())
    side = np.repeat([0, 1], lengths.sum(axis=1))
    return _FlatIds(np.concatenate(codes), pair, side, lengths)


def _describe(
    ids: _FlatIds, count_of: NDArray[np.float64], is_oov: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """Return all features of the pairs of a block."""
    overlap, is_same_bag = _compare_bags(ids)
    return {
        "length": ids.lengths.sum(axis=0).astype(np.float64),
        "length_difference": np.abs(ids.lengths[0] - ids.lengths[1]).astype(np.float64),
        "overlap": overlap,
        "oov_share": _mean_over_pairs(is_oov, ids),
        "rarest_count": _least_of_pairs(count_of, ids),
        "mean_log_count": _mean_over_pairs(np.log1p(count_of), ids),
        "is_same_bag": is_same_bag,
    }


def _chunks(texts: Any) -> list[pa.Array]:  # noqa: ANN401 - any Arrow array or list of texts
    if isinstance(texts, pa.ChunkedArray):
        return list(texts.chunks)
    return [pa.array(texts, pa.string())]


def _compare_bags(ids: _FlatIds) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Jaccard's overlap of each pair's two sets of ids, and whether its bags are equal.

    One sort brings the places of an id in a pair together; a run of equal keys is one distinct id.
    """
    num_pairs, num_codes = ids.lengths.shape[1], int(ids.codes.max(initial=0)) + 1
    place = (ids.pair * num_codes + ids.codes) * 2 + ids.side
    place.sort()
    key, in_b = place >> 1, place & 1
    starts = np.flatnonzero(np.diff(key, prepend=-1))  # (distinct ids of each pair,)
    pair = key[starts] // num_codes
    if not len(starts):
        return np.ones(num_pairs), np.ones(num_pairs)
    often = np.diff(starts, append=len(key))
    often_in_b = np.add.reduceat(in_b, starts)
    in_either = np.bincount(pair, minlength=num_pairs)
    in_both = np.bincount(pair, (often_in_b > 0) & (often_in_b < often), minlength=num_pairs)
    uneven = np.bincount(pair, 2 * often_in_b != often, minlength=num_pairs)
    overlap = np.divide(in_both, in_either, out=np.ones(num_pairs), where=in_either > 0)
    return overlap, (uneven == 0).astype(np.float64)


def _mean_over_pairs(of_code: NDArray[np.float64], ids: _FlatIds) -> NDArray[np.float64]:
    """Return the mean of a number of each id over each pair's ids (B,); 0 without ids."""
    lengths = ids.lengths.sum(axis=0)
    total = np.bincount(ids.pair, of_code[ids.codes], minlength=len(lengths))
    mean: NDArray[np.float64] = total / np.maximum(lengths, 1)
    return mean


def _least_of_pairs(of_code: NDArray[np.float64], ids: _FlatIds) -> NDArray[np.float64]:
    """Return the least of a number of each id over each pair's ids (B,); 0 without ids."""
    least = np.full(ids.lengths.size, np.inf)
    lengths = ids.lengths.ravel()
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    if len(starts):
        least[lengths > 0] = np.minimum.reduceat(of_code[ids.codes], starts)
    of_pair: NDArray[np.float64] = least.reshape(2, -1).min(axis=0)
    return np.where(np.isinf(of_pair), 0.0, of_pair)
