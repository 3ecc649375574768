"""Ids that occur together more often than by chance: the words of a text nobody can read.

Two neighbours belong to one word if their pointwise mutual information is high (Church & Hanks
1990): log p(a, b) / (p(a) p(b)), estimated from counts. Shapes: N tokens laid end to end, J joints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.data.vocabulary import EncodedPairs

LONGEST_WORD = 3
"""Tokens of a word, at most; a longer run of joints is cut."""

MIN_COUNT = 10
"""Times that two ids are neighbours before they may be one word."""

MIN_INFORMATION = 3.0
"""Pointwise mutual information of a joint, at least, in nats: 20 times as often as by chance."""


class Words(NamedTuple):
    """Which neighbours belong together.

    Attributes:
        joints: (J,), int64, ascending, a * V + b for every two ids a, b that do.
        vocab_size: V.
    """

    joints: NDArray[np.int64]
    vocab_size: int

    def joins(self, ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(N - 1,), whether each token and the next one belong together; ids (N,)."""
        keys = ids[:-1].astype(np.int64) * self.vocab_size + ids[1:]
        if not len(self.joints):
            return np.zeros(len(keys), bool)
        place = np.searchsorted(self.joints, keys)
        found: NDArray[np.bool_] = self.joints[np.minimum(place, len(self.joints) - 1)] == keys
        return found

    def numbers(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """(N,), number of each token's word, counted from 0; a special token is a word alone."""
        is_first = np.ones(len(ids), bool)
        is_first[1:] = ~self.joins(ids)
        here = np.arange(len(ids))
        run_start = np.maximum.accumulate(np.where(is_first, here, 0))
        is_first |= (here - run_start) % LONGEST_WORD == 0
        return np.cumsum(is_first) - 1


def fit_words(
    pairs: EncodedPairs,
    *,
    vocab_size: int,
    min_count: int = MIN_COUNT,
    min_information: float = MIN_INFORMATION,
) -> Words:
    """Find the neighbours that belong together.

    Args:
        pairs: Whose texts are counted.
        vocab_size: V.
        min_count: Fewest times two ids are neighbours.
        min_information: Least pointwise mutual information, in nats.
    """
    ids = pairs.ids.astype(np.int64)
    is_inside = np.ones(max(len(ids) - 1, 0), bool)
    ends = pairs.offsets[1:-1] - 1
    is_inside[ends[(ends >= 0) & (ends < len(is_inside))]] = False
    left, right = ids[:-1], ids[1:]
    is_inside &= (left > Special.YES) & (right > Special.YES)
    joints, counts = np.unique(left[is_inside] * vocab_size + right[is_inside], return_counts=True)
    frequent = counts >= min_count
    joints, counts = joints[frequent], counts[frequent]
    alone = np.bincount(ids, minlength=vocab_size) / max(len(ids), 1)
    a, b = np.divmod(joints, vocab_size)
    together = counts / max(int(is_inside.sum()), 1)
    information = np.log(together / (alone[a] * alone[b]))
    return Words(joints[information >= min_information], vocab_size)
