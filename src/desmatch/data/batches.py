"""Which rows form a batch, and the batch as flat arrays. Shapes: B pairs of a batch, N tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.vocabulary import EncodedPairs, positions_within
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray


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


def plan_epoch(
    num_rows: int, *, batch_size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Deal all rows to batches at random: packed rows need no neighbours of their own length.

    Args:
        num_rows: Rows of the stage.
        batch_size: Rows a batch; the last batch of an epoch may be smaller.
        rng: Decides who meets whom.
    """
    order = rng.permutation(num_rows)
    return [order[at : at + batch_size] for at in range(0, num_rows, batch_size)]


def plan_prediction(lengths: NDArray[np.int64], *, batch_size: int) -> list[NDArray[np.int64]]:
    """Deal all rows to batches, longest first, so that memory runs out at once or never."""
    order = np.argsort(-lengths, kind="stable")
    return [order[at : at + batch_size] for at in range(0, len(order), batch_size)]


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
