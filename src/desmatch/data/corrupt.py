"""Masked language modelling's noise, drawn anew at every pass.

Source: BERT (arXiv 1810.04805), 80 % [MASK], 10 % a random token, 10 % kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1


class Corrupted(NamedTuple):
    """Tokens with noise, and what was there.

    Attributes:
        ids: (N,), with noise.
        positions: (P,), where a token is to be predicted, ascending.
        labels: (P,), the token that was there.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    labels: NDArray[np.int64]


def choose_tokens(
    ids: NDArray[np.int64], *, probability: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N,), each ordinary token of `ids` (N,) chosen with `probability`, no other."""
    chosen: NDArray[np.bool_] = (ids > Special.YES) & (rng.random(len(ids)) < probability)
    return chosen


def corrupt(
    ids: NDArray[np.int64],
    *,
    probability: float,
    first_id: int,
    vocab_size: int,
    rng: np.random.Generator,
) -> Corrupted:
    """Choose each ordinary token with `probability` and replace most of the chosen.

    Special tokens, [UNK] among them, and padding are never chosen.

    Args:
        ids: (N,), token ids laid end to end.
        probability: Share of the ordinary tokens that are predicted.
        first_id: Token ids from here on are frequent raw ids; random tokens are drawn from them.
        vocab_size: V.
        rng: The same state gives the same noise.
    """
    positions = np.flatnonzero(choose_tokens(ids, probability=probability, rng=rng))
    fate = rng.random(len(positions))
    noisy = ids.copy()
    noisy[positions[fate < MASK_SHARE]] = Special.MASK
    at_random = positions[fate >= 1 - RANDOM_SHARE]
    if first_id < vocab_size:
        noisy[at_random] = rng.integers(first_id, vocab_size, len(at_random))
    return Corrupted(noisy, positions, ids[positions])
