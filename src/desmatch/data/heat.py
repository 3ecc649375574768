"""Tokens left out of the encoder, and the kept tokens that stand for each of them.

Shapes: B pairs, N tokens of a flat batch, K kept ones, M predicted ones. Source: QB-Heat (arXiv
2211.13228), carried from pictures to tokens as kexue.fm/archives/9359 proposes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.data.batches import FlatBatch
from desmatch.data.corrupt import choose_tokens, text_numbers
from desmatch.data.vocabulary import positions_within
from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.recipe_training import Fill


class LeftOut(NamedTuple):
    """A flat batch some tokens of which are not there.

    Attributes:
        kept: The kept tokens; [CLS] and both [SEP] of a pair are always among them.
        position_ids: (K,), where each kept token stands in its whole pair.
        neighbors: (2, N), for each token of the whole batch the kept tokens, numbered by `kept`,
            that stand for it, left and right; a kept token stands for itself, and where one
            stands for a token alone, it is both.
        positions: (M,), tokens of the whole batch that are to be predicted, ascending.
        labels: (M,), the tokens that were there.
    """

    kept: FlatBatch
    position_ids: NDArray[np.int64]
    neighbors: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


def choose_left_out(
    flat: FlatBatch, *, fill: Fill, probability: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the tokens that the encoder does not see, (N,).

    Args:
        flat: Pairs of a batch.
        fill: With `extrapolate` all of a text but one contiguous piece, else tokens at random.
        probability: Share of the tokens.
        rng: The same state gives the same choice.
    """
    if fill == "extrapolate":
        return _outside_of_pieces(flat.ids, probability, rng)
    return choose_tokens(flat.ids, probability=probability, rng=rng)


def _outside_of_pieces(
    ids: NDArray[np.int64], probability: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N,), True outside of a piece at a random place in each text, at least one token long."""
    is_inside = _in_texts(ids)
    numbers = text_numbers(ids)[is_inside]
    text, lengths = np.unique(numbers, return_inverse=True, return_counts=True)[1:]
    kept = np.floor(lengths * (1 - probability) + rng.random(len(lengths)))
    kept = np.clip(kept, 1, lengths)
    first = np.floor(rng.random(len(lengths)) * (lengths - kept + 1))
    within = positions_within(lengths)
    is_left_out = np.zeros(len(ids), bool)
    is_left_out[is_inside] = (within < first[text]) | (within >= (first + kept)[text])
    return is_left_out


def leave_out(flat: FlatBatch, is_left_out: NDArray[np.bool_], *, fill: Fill) -> LeftOut:
    """Take tokens out of a flat batch and find what stands for them.

    Args:
        flat: Pairs of a batch.
        is_left_out: (N,), of texts alone; ordinary tokens among them are to be predicted.
        fill: `linear`: both nearest kept tokens of the pair; `extrapolate`: the nearest one of
            the text; else the nearest one of the pair.
    """
    is_kept = ~is_left_out
    if fill == "extrapolate":
        both = neighbors(is_kept & _in_texts(flat.ids), text_numbers(flat.ids))
    else:
        both = neighbors(is_kept, np.repeat(np.arange(len(flat.lengths)), flat.lengths))
    chosen = both if fill == "linear" else nearest(both)
    here = np.arange(len(flat.ids))
    number = np.cumsum(is_kept) - 1
    lengths = np.add.reduceat(is_kept, flat.starts, dtype=np.int64)
    positions = np.flatnonzero(is_left_out & (flat.ids > Special.YES))
    return LeftOut(
        FlatBatch(flat.ids[is_kept], np.cumsum(lengths) - lengths, lengths),
        positions_within(flat.lengths)[is_kept],
        number[np.where(is_kept, here, chosen)],
        positions,
        flat.ids[positions],
    )


def neighbors(is_kept: NDArray[np.bool_], segment: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearest kept tokens at or before each token, and at or after it, (2, N).

    Where a segment has none on one side, that on the other side is both; where it has none at
    all, the token itself is.

    Args:
        is_kept: (N,).
        segment: (N,), ascending; neighbours of a token lie in its own.
    """
    here = np.arange(len(is_kept))
    left = np.maximum.accumulate(np.where(is_kept, here, 0))
    right = np.minimum.accumulate(np.where(is_kept, here, len(here) - 1)[::-1])[::-1]
    has_left = is_kept[left] & (segment[left] == segment)
    has_right = is_kept[right] & (segment[right] == segment)
    left, right = np.where(has_left, left, here), np.where(has_right, right, here)
    return np.stack([np.where(has_left, left, right), np.where(has_right, right, left)])


def nearest(both: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the nearer of a left and a right token twice, (2, N); of equals the left one."""
    left, right = both
    here = np.arange(len(left))
    nearer = np.where(here - left <= right - here, left, right)
    return np.stack([nearer, nearer])


def _in_texts(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,), True but at [CLS] and [SEP]."""
    return ~np.isin(ids, (Special.CLS, Special.SEP))
