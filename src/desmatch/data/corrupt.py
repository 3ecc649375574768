"""Masked language modelling's noise, drawn anew at every pass.

Sources: BERT (arXiv 1810.04805), 80 % [MASK], 10 % a random token, 10 % kept; whole n-grams of 1, 2
and 3 tokens, fewer in short texts and never side by side, from the winners of GAIIC 2021 track 3.
Shapes: N tokens laid end to end, P predicted ones, T texts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from desmatch.schema import Special

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from desmatch.data.words import Words

MASK_SHARE = 0.8
RANDOM_SHARE = 0.1

NGRAM_SHARES = (0.7, 0.2, 0.1)
"""How often 1, 2 and 3 tokens are hidden together."""

SHORTEST_TEXT = (2, 4, 7)
"""Tokens that a text has, at least, before 1, 2 and 3 of them are hidden together."""


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


def choose_ngrams(
    ids: NDArray[np.int64], *, probability: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N,), whole n-grams of ordinary tokens chosen, no two side by side.

    Along a text an n-gram begins with hazard h; after it comes at least one token that stays. Of n
    tokens on average, followed by a gap of 1 / h, the share chosen is n / (n + 1 / h): h is such
    that this is `probability`. N-grams that a text's end cuts short make the share a little lower.

    Args:
        ids: (N,), pairs with their special tokens.
        probability: Share of the ordinary tokens.
        rng: The same state gives the same choice.
    """
    is_ordinary = ids > Special.YES
    text = text_numbers(ids)
    lengths = np.bincount(text, weights=is_ordinary)
    most = np.searchsorted(SHORTEST_TEXT, lengths, side="right")  # (T,), longest n-gram of a text
    hazards = np.array([_hazard(longest, probability) for longest in range(len(NGRAM_SHARES) + 1)])
    begins = is_ordinary & (rng.random(len(ids)) < hazards[most][text])
    sizes = np.searchsorted(np.cumsum(NGRAM_SHARES), rng.random(len(ids)), side="right") + 1
    chosen = np.zeros(len(ids), bool)
    next_free = 0
    for start in np.flatnonzero(begins).tolist():
        if start >= next_free:
            size = 1 + (sizes[start] - 1) % most[text[start]]
            end = start
            while end < start + size and is_ordinary[end]:  # [SEP] ends every text
                end += 1
            chosen[start:end] = True
            next_free = end + 1
    return chosen


def _hazard(longest: int, probability: float) -> float:
    """Chance that an n-gram of at most `longest` tokens begins at a token; 0 where none may."""
    if not longest:
        return 0.0
    shares = np.bincount(np.arange(len(NGRAM_SHARES)) % longest, weights=NGRAM_SHARES)
    mean = float(shares @ np.arange(1, longest + 1))
    return probability / (mean * (1 - probability))


def choose_words(
    ids: NDArray[np.int64], words: Words, *, probability: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(N,), all tokens of a word chosen or none, each word with `probability`."""
    number = words.numbers(ids)
    is_hidden = rng.random(int(number[-1]) + 1 if len(ids) else 0) < probability
    chosen: NDArray[np.bool_] = (ids > Special.YES) & is_hidden[number]
    return chosen


def text_numbers(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,), number of each token's text; [CLS] belongs to the next one, [SEP] to the last one."""
    is_end = ids == Special.SEP
    number: NDArray[np.int64] = np.cumsum(is_end) - is_end
    return number


def corrupt(
    ids: NDArray[np.int64],
    chosen: NDArray[np.bool_],
    *,
    first_id: int,
    vocab_size: int,
    rng: np.random.Generator,
) -> Corrupted:
    """Replace most of the chosen tokens.

    Args:
        ids: (N,), token ids laid end to end.
        chosen: (N,), which are predicted: ordinary ones, no special token, [UNK] or padding.
        first_id: Token ids from here on are frequent raw ids; random tokens are drawn from them.
        vocab_size: V.
        rng: The same state gives the same noise.
    """
    positions = np.flatnonzero(chosen)
    fate = rng.random(len(positions))
    noisy = ids.copy()
    noisy[positions[fate < MASK_SHARE]] = Special.MASK
    at_random = positions[fate >= 1 - RANDOM_SHARE]
    if first_id < vocab_size:
        noisy[at_random] = rng.integers(first_id, vocab_size, len(at_random))
    return Corrupted(noisy, positions, ids[positions])
