"""Which rows form a batch, and the batch as flat arrays. Shapes: B pairs of a batch, N tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.vocabulary import EncodedPairs, positions_within
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Share(NamedTuple):
    """Consecutive pairs of a batch, which one of several processes works at.

    Attributes:
        pairs: Of the batch, into (B,).
        tokens: Theirs, into (N,).
        is_filler: Whether there are more processes than pairs, so that this one has none: it gets
            a pair of which nothing is learnt.
    """

    pairs: slice
    tokens: slice
    is_filler: bool = False


class FlatBatch(NamedTuple):
    """Pairs of a batch end to end, each [CLS] first [SEP] second [SEP].

    Attributes:
        ids: (N,), token ids.
        starts: (B,), where each pair begins.
        lengths: (B,), tokens of each pair.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def share(self, number: int, num_shares: int) -> Share:
        """Return one of some shares that are equal to a pair."""
        bounds = [len(self.lengths) * each // num_shares for each in (number, number + 1)]
        is_filler = bounds[0] == bounds[1]
        first, end = (0, 1) if is_filler else bounds
        start = int(self.starts[first])
        tokens = slice(start, start + int(self.lengths[first:end].sum()))
        return Share(slice(first, end), tokens, is_filler)

    def take(self, share: Share) -> FlatBatch:
        """Return the pairs of a share."""
        starts = self.starts[share.pairs] - share.tokens.start
        return FlatBatch(self.ids[share.tokens], starts, self.lengths[share.pairs])


def plan_prediction(lengths: NDArray[np.int64], *, batch_size: int) -> list[NDArray[np.int64]]:
    """Deal all rows to batches, longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


def plan_by_tokens(lengths: NDArray[np.int64], *, batch_tokens: int) -> list[NDArray[np.int64]]:
    """Deal all rows, longest first, to batches of about as many tokens, a row too many at most.

    Args:
        lengths: (B,), tokens of each row.
        batch_tokens: Of a batch.
    """
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batch = (ends - 1) // batch_tokens  # of each row's last token
    return [*np.split(order, np.flatnonzero(np.diff(batch)) + 1)] if len(order) else []


def assemble(pairs: EncodedPairs, rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> FlatBatch:
    """Lay pairs end to end with their special tokens.

    Args:
        pairs: All rows.
        rows: (B,), the rows of this batch.
        swapped: (B,), whether a row's second text comes first.
    """
    first, second = 2 * rows + swapped, 2 * rows + (1 - swapped)
    first_length = pairs.offsets[first + 1] - pairs.offsets[first]
    second_length = pairs.offsets[second + 1] - pairs.offsets[second]
    lengths = first_length + second_length + 3
    starts = np.cumsum(lengths) - lengths
    ids = np.full(int(lengths.sum()), int(Special.SEP), np.int64)
    ids[starts] = Special.CLS
    for text, length, shift in (
        (first, first_length, 1),
        (second, second_length, first_length + 2),
    ):
        within = positions_within(length)
        ids[np.repeat(starts + shift, length) + within] = pairs.ids[
            np.repeat(pairs.offsets[text], length) + within
        ]
    return FlatBatch(ids, starts, lengths)
